use std::collections::BTreeMap;
use std::fmt;

mod inner {
    pub trait Area {
        fn area(&self) -> f64;
    }
    pub struct Square(pub f64);
    impl Area for Square {
        #[inline(never)]
        fn area(&self) -> f64 {
            self.0 * self.0
        }
    }
    #[inline(always)]
    pub fn scaled(x: u64) -> u64 {
        mixed(x).wrapping_mul(0x9e37_79b9)
    }
    #[inline(always)]
    fn mixed(x: u64) -> u64 {
        (x ^ (x >> 7)).rotate_left(9)
    }
}

struct Shown<'a, T>(&'a [T]);

impl<T: fmt::Debug> fmt::Display for Shown<'_, T> {
    #[inline(never)]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|item| write!(f, "{item:?};"))
    }
}

#[inline(never)]
fn count(words: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for word in words {
        *counts.entry(word.as_str()).or_insert(0) += 1;
    }
    counts
}

fn main() {
    use inner::Area;
    let words: Vec<String> = std::env::args().collect();
    let shape: Box<dyn Area> = Box::new(inner::Square(words.len() as f64));
    let hash = words.iter().fold(7, |sum, word| inner::scaled(sum + word.len() as u64));
    println!("{} {} {:?} {hash}", shape.area(), Shown(&words), count(&words));
}
