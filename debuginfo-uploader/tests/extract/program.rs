use std::collections::BTreeMap;

#[inline(never)]
fn inner(count: usize) -> BTreeMap<usize, String> {
    (0..count).map(|n| (n, format!("{n:?}"))).collect()
}

fn main() {
    println!("{}", inner(std::env::args().count() * 10).len());
}
