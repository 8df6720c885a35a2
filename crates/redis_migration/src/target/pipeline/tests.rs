use super::*;
use model::error::Reason;
use redis_proto::resp::Reply;
use replies::check_applied;

#[test]
fn red_07_transaction_errors_are_classified_by_the_exec_reply() {
    let error = |text: &str| Reply::Error(text.into());
    let of = |refused: Option<&str>, reply: Reply| {
        check_applied("p", refused, &reply).err().map(|f| (f.kind, f.reason))
    };
    assert_eq!(of(None, Reply::Array(vec![Reply::Simple("OK".into())])), None);
    assert_eq!(of(None, Reply::Array(vec![error("WRONGTYPE x")])), Some((Kind::Conflict, Reason::Diverged)));
    let aborted = || error("EXECABORT Transaction discarded because of previous errors.");
    assert_eq!(of(Some("OOM command not allowed"), aborted()), Some((Kind::NoSpace, Reason::Unspecified)));
    assert_eq!(
        of(Some("MISCONF Redis is configured"), aborted()),
        Some((Kind::Unavailable, Reason::Unspecified))
    );
    let late = error("EXECABORT Transaction discarded because of: NOREPLICAS Not enough good replicas");
    assert_eq!(of(None, late), Some((Kind::Unavailable, Reason::Unspecified)));
    // RED-01: without MULTI each command was done alone.
    assert_eq!(
        of(Some("NOPERM no"), error("ERR EXEC without MULTI")),
        Some((Kind::Conflict, Reason::Diverged))
    );
}
