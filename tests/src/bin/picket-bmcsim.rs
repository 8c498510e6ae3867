//! `picket-bmcsim`.
fn main() {}
