//! Chains through futures: two tasks on one thread, polled by a loop in turn. Names of chain functions start with `w_`; the
//! chains stand in tests/src/odd.rs.
//!
//! Usage: chains-async [SECONDS]

use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

#[inline(never)]
fn w_spin() {
    let mut x = black_box(1u64);
    for _ in 0..3_000_000 {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    }
    black_box(x);
}

/// Ready at the second poll.
struct Yield(bool);

impl Future for Yield {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) { Poll::Ready(()) } else { Poll::Pending }
    }
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

async fn w_async_inner() {
    w_spin();
    Yield(false).await;
    w_spin();
}

async fn w_async_outer() {
    loop {
        let inner: Task = black_box(Box::pin(w_async_inner()));
        inner.await;
    }
}

async fn w_async_other() {
    loop {
        w_spin();
        Yield(false).await;
    }
}

#[inline(never)]
fn w_async_main() {
    let mut context = Context::from_waker(Waker::noop());
    let mut tasks: [Task; 2] = [Box::pin(w_async_outer()), Box::pin(w_async_other())];
    loop {
        for task in black_box(&mut tasks) {
            black_box(task.as_mut().poll(&mut context).is_ready());
        }
    }
}

fn main() {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(600);
    std::thread::Builder::new().name("w-async".into()).spawn(w_async_main).expect("a thread starts");
    println!("started 1 thread");
    std::thread::sleep(Duration::from_secs(seconds));
    std::process::exit(0);
}
