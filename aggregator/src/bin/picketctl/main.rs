//! `picketctl`.
fn main() {}
