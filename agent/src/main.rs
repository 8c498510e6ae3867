//! `picket-agent`.
fn main() {}
