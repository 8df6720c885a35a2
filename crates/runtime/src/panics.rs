//! A panic becomes a failure: of the task, which shows it, or of one step of the dispatcher, which goes on.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use model::error::{Error, Kind, Result};

/// Runs `work` to its end, or to its panic. What it had borrowed may be half changed then: the caller lets it go.
///
/// # Errors
/// [`Kind::Internal`] with the panic's text.
pub(crate) async fn catch_panic<T>(work: impl Future<Output = T>) -> Result<T> {
    let mut work = pin!(work);
    std::future::poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(failure(&*panic))),
    })
    .await
}

fn failure(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    Error::new(Kind::Internal, "panic", format!("internal error (panic): {text:.500}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn panic_becomes_an_error_with_its_message() {
        assert_eq!(catch_panic(async { 7 }).await.unwrap(), 7);
        let failure = catch_panic(async {
            tokio::task::yield_now().await;
            panic!("broken {}", 1)
        });
        let failure: Error = failure.await.map(|(): ()| ()).unwrap_err();
        assert!(failure.kind == Kind::Internal && failure.message.contains("broken 1"), "{failure}");
    }
}
