//! The answers of one server of a cluster: each transaction of a slot is judged as a whole.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use model::error::{Error, Kind, Reason};
use redis_proto::command::SLOTS;
use redis_proto::resp::{Replies, Reply};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use crate::connection::client::{Incoming, VALUE_MAX};
use crate::connection::reply_error::{ReplyError, classify, reply_failure};
use crate::connection::topology::Addr;

/// Bytes of one read of replies.
const READ_BYTES: usize = 64 << 10;

/// The connection to a target ended while replies were expected.
pub(crate) fn connection_lost(url: &str, why: &dyn std::fmt::Display) -> Error {
    Error::new(Kind::Connect, "read", format!("{url}: connection lost: {why}"))
}

/// A reply that no command waits for.
pub(crate) fn unexpected_reply(url: &str) -> Error {
    Error::new(Kind::Corrupt, "read", format!("{url}: unexpected reply (no request pending)"))
}

/// The target rejected a change that the source has made: from here on it is not a copy of the source.
pub(crate) fn diverged(url: &str, text: &str) -> Error {
    let m = format!("{url}: the target rejected a replicated command: {text}");
    Error::new(Kind::Conflict, "diverged", m).because(Reason::Diverged)
}

/// True when `EXEC` was refused because `MULTI` had been: the commands between them were executed one by one.
pub(crate) fn was_executed_without_transaction(exec: &Reply) -> bool {
    matches!(exec, Reply::Error(text) if classify(text) == ReplyError::ExecWithoutMulti)
}

/// How a transaction ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is done; these of its commands answered with an error.
    Done(Vec<(usize, String)>),
    /// It belongs there from now on.
    Moved(Addr),
    /// It belongs there this once.
    Ask(Addr),
    /// Its slot is on its way.
    Retry(String),
    /// A sign of life was answered.
    Pong,
    /// It cannot be done, and so nothing can.
    Failed(Error),
}

/// The receiving half of one server's connection.
pub(crate) async fn read(
    mut incoming: Incoming,
    queue: Arc<Mutex<VecDeque<(u16, u32)>>>,
    answered: mpsc::UnboundedSender<(u16, Outcome)>,
    url: String,
) {
    let mut replies = Replies::with_limit(VALUE_MAX);
    let mut buf = vec![0; READ_BYTES];
    let mut current: Option<ReplyCollector> = None;
    let broke = |why: &dyn std::fmt::Display| Outcome::Failed(connection_lost(&url, why));
    loop {
        match incoming.read(&mut buf).await {
            Ok(0) => {
                let _ = answered.send((0, broke(&"closed by the server")));
                return;
            }
            Err(e) => {
                let _ = answered.send((0, broke(&e)));
                return;
            }
            Ok(n) => replies.push(&buf[..n]),
        }
        loop {
            let reply = match replies.next_reply() {
                Ok(Some(Reply::Push(_))) => continue,
                Ok(Some(reply)) => reply,
                Ok(None) => break,
                Err(e) => {
                    let failure = Error::new(Kind::Corrupt, "read", format!("{url}: {e}"));
                    let _ = answered.send((0, Outcome::Failed(failure)));
                    return;
                }
            };
            let collector = match current.take() {
                Some(collector) => collector,
                None => match queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front() {
                    Some((slot, answers)) => ReplyCollector { slot, left: answers, why: None },
                    None => {
                        let _ = answered.send((0, Outcome::Failed(unexpected_reply(&url))));
                        return;
                    }
                },
            };
            match collector.push(&url, reply) {
                Ok(collector) => current = Some(collector),
                Err((slot, outcome)) => {
                    if answered.send((slot, outcome)).is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// Collects the replies to one transaction.
struct ReplyCollector {
    slot: u16,
    left: u32,
    /// The first refusal.
    why: Option<String>,
}

impl ReplyCollector {
    /// Takes an answer; gives the outcome back as an error when it was the last.
    fn push(mut self, url: &str, reply: Reply) -> std::result::Result<Self, (u16, Outcome)> {
        if self.slot == SLOTS {
            // Any reply shows that the server works.
            return Err((self.slot, Outcome::Pong));
        }
        self.left -= 1;
        if self.left > 0 {
            if let Reply::Error(text) = reply {
                self.why.get_or_insert(text);
            }
            return Ok(self);
        }
        let outcome = match (self.why, reply) {
            (Some(why), exec) if was_executed_without_transaction(&exec) => {
                Outcome::Failed(diverged(url, &why))
            }
            (Some(why), _) | (None, Reply::Error(why)) => classify_refusal(url, &why),
            (None, Reply::Array(all)) => {
                let errors = all.into_iter().enumerate().filter_map(|(i, r)| match r {
                    Reply::Error(text) => Some((i, text)),
                    _ => None,
                });
                Outcome::Done(errors.collect())
            }
            (None, _) => {
                let m = format!("{url}: EXEC was aborted");
                Outcome::Failed(Error::new(Kind::Conflict, "write", m))
            }
        };
        Err((self.slot, outcome))
    }
}

/// What the refusal of a transaction means.
fn classify_refusal(url: &str, why: &str) -> Outcome {
    let refused = classify(why);
    let redirection = match refused {
        ReplyError::Moved(addr) => addr.and_then(|addr| parse_addr(url, addr)).map(Outcome::Moved),
        ReplyError::Ask(addr) => addr.and_then(|addr| parse_addr(url, addr)).map(Outcome::Ask),
        _ => None,
    };
    redirection.unwrap_or_else(|| match refused.is_transient() {
        true => Outcome::Retry(why.to_owned()),
        false => Outcome::Failed(reply_failure(url, "write", why)),
    })
}

/// The address of a redirection; a server that does not know its own name leaves it out, and the one that was asked is meant.
fn parse_addr(url: &str, addr: &str) -> Option<Addr> {
    let (host, port) = addr.rsplit_once(':')?;
    let asked = url.rsplit_once("//").map_or(url, |(_, rest)| rest);
    let asked = asked.rsplit_once(':').map_or(asked, |(host, _)| host);
    let host = if host.is_empty() { asked } else { host };
    Some((host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_error_replies_are_classified() {
        let Outcome::Moved(addr) = classify_refusal("redis://10.0.0.1:7000", "MOVED 5 10.0.0.2:7001") else {
            panic!()
        };
        assert_eq!(addr, ("10.0.0.2".to_owned(), 7001));
        let Outcome::Ask(addr) = classify_refusal("redis://10.0.0.1:7000", "ASK 5 :7001") else { panic!() };
        assert_eq!(addr, ("10.0.0.1".to_owned(), 7001));
        assert!(matches!(classify_refusal("p", "TRYAGAIN Multiple keys"), Outcome::Retry(_)));
        // RED-07: what passes is waited out.
        for passing in
            ["OOM command not allowed", "MISCONF no disk", "NOREPLICAS x", "BUSY script", "MASTERDOWN x"]
        {
            assert!(matches!(classify_refusal("p", passing), Outcome::Retry(_)), "{passing}");
        }
        assert!(matches!(classify_refusal("p", "NOPERM x"), Outcome::Failed(f) if f.kind == Kind::Forbidden));
    }

    #[test]
    fn transaction_error_is_its_first_rejected_command() {
        let collector = |replies: Vec<Reply>| {
            let mut collector =
                ReplyCollector { slot: 7, left: u32::try_from(replies.len()).unwrap(), why: None };
            for reply in replies {
                collector = match collector.push("p", reply) {
                    Ok(collector) => collector,
                    Err((slot, outcome)) => return (slot, format!("{outcome:?}")),
                };
            }
            panic!("no outcome")
        };
        let (ok, queued) = (|| Reply::Simple("OK".into()), || Reply::Simple("QUEUED".into()));
        let wrong = || Reply::Error("WRONGTYPE x".into());
        let (slot, said) = collector(vec![ok(), queued(), Reply::Array(vec![wrong()])]);
        assert!(slot == 7 && said.contains("Done([(0, \"WRONGTYPE x\")])"), "{said}");
        let moved = Reply::Error("MOVED 7 h:1".into());
        let (_, said) = collector(vec![ok(), moved, Reply::Error("EXECABORT".into())]);
        assert!(said.contains("Moved"), "{said}");
    }
}
