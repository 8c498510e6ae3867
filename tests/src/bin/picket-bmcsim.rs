//! `picket-bmcsim`.
fn main() {
    let sim = picket_tests::bmcsim::Simulator::start(picket_tests::bmcsim::Config { ipmi: 4, ..Default::default() });
    println!("{:?}", sim.as_ref().map(|s| s.len()));
    loop {
        std::thread::park()
    }
}
