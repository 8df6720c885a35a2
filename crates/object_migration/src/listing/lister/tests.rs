//! Walks over stores of every behaviour: whatever order, tokens, `start-after` and pages they have, each key comes once,
//! or the walk fails.

use std::collections::BTreeSet;
use std::sync::Mutex;

use async_trait::async_trait;
use storage::{Capability, Entry, Etag, Meta, Probe, ReadRequest, Reading};

use super::*;

/// How a server reads `start-after`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Starts {
    Honoured,
    Inclusive,
    Ignored,
    Refused,
    /// A folder walk that omits what is below the key.
    SkipsBelow,
}

/// What a server does with tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Tokens {
    Good,
    /// Each is good once more at most; the one in the middle of the walk is refused.
    Expire,
    /// None is ever good.
    Refused,
    /// The first two that are sent are refused.
    RefusedTwice,
    /// The second page leads to itself.
    Stuck,
    /// The third page leads to the first.
    Circle,
}

#[derive(Debug)]
struct Server {
    keys: Vec<Key>,
    page: usize,
    /// The order that it has, whatever it declares.
    order: Order,
    starts: Starts,
    tokens: Tokens,
    /// So many empty pages stand before each page.
    empty: usize,
    capability: Mutex<Capability>,
    asked: Mutex<Vec<Position>>,
}

impl Server {
    fn new(keys: Vec<Key>, declared: Order) -> Self {
        let shown = Capability { list_order: declared, ..Capability::S3 };
        Self {
            keys,
            page: 3,
            starts: Starts::Honoured,
            order: declared,
            tokens: Tokens::Good,
            empty: 0,
            capability: Mutex::new(shown),
            asked: Mutex::default(),
        }
    }

    fn first_after(&self, key: &Key) -> usize {
        let order = self.order;
        let after = |k: &Key| order.compare(k.as_bytes(), key.as_bytes());
        match self.starts {
            Starts::Ignored => 0,
            Starts::Inclusive => self.keys.iter().position(|k| after(k).is_ge()).unwrap_or(self.keys.len()),
            Starts::SkipsBelow => {
                let below = [key.as_bytes(), b"/"].concat();
                let hit = |k: &Key| after(k).is_gt() && !k.as_bytes().starts_with(&below);
                self.keys.iter().position(hit).unwrap_or(self.keys.len())
            }
            _ => self.keys.iter().position(|k| after(k).is_gt()).unwrap_or(self.keys.len()),
        }
    }
}

#[async_trait]
impl ObjectStore for Server {
    fn capability(&self) -> &Capability {
        // Leaked: a test's few.
        Box::leak(Box::new(*self.capability.lock().unwrap()))
    }
    fn learn(&self, fact: Fact) {
        let mut capability = self.capability.lock().unwrap();
        match fact {
            Fact::ListOrder(order) => capability.list_order = order,
            Fact::StartAfter(start) => capability.list_start_after = start,
            _ => {}
        }
    }
    fn location(&self) -> String {
        "scripted".into()
    }
    async fn probe(&self, _: &str) -> Result<Probe> {
        unreachable!("only lists")
    }
    async fn list(&self, request: &ListRequest) -> Result<Page> {
        self.asked.lock().unwrap().push(request.from.clone());
        let (at, empty) = match &request.from {
            Position::Start => (0, 0),
            Position::After(_) if self.starts == Starts::Refused => {
                return Err(Error::new(Kind::OutOfOrderListing, "list", "no start-after here"));
            }
            Position::After(key) => (self.first_after(key), 0),
            Position::Token(token) => {
                let (at, empty) = token.split_once(' ').unwrap();
                (at.parse().unwrap(), empty.parse().unwrap())
            }
        };
        let is_token = matches!(request.from, Position::Token(_));
        let sent = {
            let asked = self.asked.lock().unwrap();
            assert!(asked.len() < 10_000, "the walk has no end");
            asked.iter().filter(|from| matches!(from, Position::Token(_))).count()
        };
        let refused = match self.tokens {
            Tokens::Refused => true,
            Tokens::RefusedTwice => sent <= 2,
            _ => false,
        };
        if is_token && refused {
            return Err(Error::new(Kind::Invalid, "list", "the token has expired"));
        }
        if self.tokens == Tokens::Expire && is_token && at == self.page * 2 {
            return Err(Error::new(Kind::Invalid, "list", "the token has expired"));
        }
        if empty < self.empty {
            let next = Some(Position::Token(format!("{at} {}", empty + 1).into()));
            return Ok(Page { next, ..Page::default() });
        }
        let end = (at + self.page.min(request.max as usize)).min(self.keys.len());
        let entries: Vec<Entry> = self.keys[at..end]
            .iter()
            .filter(|k| k.as_bytes().starts_with(request.prefix.as_bytes()))
            .map(|key| Entry {
                key: key.clone(),
                size: 1,
                modified_ms: 0,
                written_ms: 0,
                etag: Etag::None,
                class: None,
            })
            .collect();
        let follow = match self.tokens {
            Tokens::Stuck if is_token => at,
            Tokens::Circle if at >= self.page * 2 => 0,
            _ => end,
        };
        let next = (end < self.keys.len()).then(|| Position::Token(format!("{follow} 0").into()));
        Ok(Page { entries, next, ..Page::default() })
    }
    async fn head(&self, key: &Key, _: Option<u32>) -> Result<Meta> {
        match self.keys.contains(key) {
            true => Ok(Meta::default()),
            false => Err(Error::new(Kind::NotFound, "head", "no such key")),
        }
    }
    async fn read(&self, _: &Key, _: &ReadRequest) -> Result<Reading> {
        unreachable!("only lists")
    }
    async fn tags(&self, _: &Key) -> Result<Vec<(String, String)>> {
        unreachable!("only lists")
    }
    async fn buckets(&self) -> Result<Vec<String>> {
        unreachable!("only lists")
    }
}

fn keys(order: Order) -> Vec<Key> {
    let mut keys: Vec<Key> =
        ["a", "a!", "a/b", "a/c", "a0", "k1", "k2", "k3", "m", "m/inside", "m/inside2", "n", "z", "ü"]
            .iter()
            .map(|k| Key::from(*k))
            .collect();
    keys.sort_by(|a, b| order.compare(a.as_bytes(), b.as_bytes()));
    keys
}

async fn walk(mut lister: Lister) -> Result<Vec<Key>> {
    let mut met = Vec::new();
    for _ in 0..200 {
        match lister.next().await? {
            Some(listed) => met.extend(listed.page.entries.into_iter().map(|e| e.key)),
            None => return Ok(met),
        }
    }
    panic!("the walk has no end");
}

const STARTS: [Starts; 5] =
    [Starts::Honoured, Starts::Inclusive, Starts::Ignored, Starts::Refused, Starts::SkipsBelow];

#[tokio::test]
async fn obj_04_listing_resumed_after_any_key_returns_each_later_key_once() {
    for order in [Order::Bytes, Order::Segments] {
        for starts in STARTS {
            for empty in [0, 2] {
                for i in 0..keys(order).len() {
                    let store = Arc::new(Server { starts, empty, ..Server::new(keys(order), order) });
                    let after = store.keys[i].clone();
                    let met =
                        walk(Lister::after(store.clone(), "", after.clone(), Side::Source)).await.unwrap();
                    assert_eq!(met, store.keys[i + 1..], "{order:?} {starts:?} {empty} after {after}");
                }
            }
        }
    }
}

#[tokio::test]
async fn obj_04_listing_resumes_behind_a_deleted_key() {
    for starts in STARTS {
        let store = Arc::new(Server { starts, ..Server::new(keys(Order::Bytes), Order::Bytes) });
        let after = Key::from("k2gone");
        let want: Vec<Key> = store.keys.iter().filter(|k| **k > after).cloned().collect();
        let met = walk(Lister::after(store, "", after, Side::Source)).await;
        match starts {
            // Nothing shows any more what was listed before it.
            Starts::Ignored | Starts::Refused => {
                assert_eq!(met.unwrap_err().kind, Kind::OutOfOrderListing, "{starts:?}");
            }
            _ => assert_eq!(met.unwrap(), want, "{starts:?}"),
        }
    }
}

#[tokio::test]
async fn obj_04_deleted_key_does_not_hide_a_wrong_order() {
    // Listed folder by folder, declared by bytes: `a/` was listed, and `a.txt` was not, when the walk was interrupted.
    let by_folders = |names: &[&str]| {
        let mut keys: Vec<Key> = names.iter().map(|name| Key::from(*name)).collect();
        keys.sort_by(|a, b| Order::Segments.compare(a.as_bytes(), b.as_bytes()));
        keys
    };
    for starts in [Starts::Honoured, Starts::Inclusive] {
        let store = Server {
            starts,
            order: Order::Segments,
            ..Server::new(by_folders(&["0", "a.txt", "a0", "b", "c"]), Order::Bytes)
        };
        let met = walk(Lister::after(Arc::new(store), "", Key::from("a/"), Side::Source)).await;
        assert_eq!(met.unwrap_err().kind, Kind::OutOfOrderListing, "{starts:?}");
    }
}

#[tokio::test]
async fn obj_13_empty_pages_are_followed() {
    for order in [Order::Bytes, Order::Unknown] {
        let store = Arc::new(Server { empty: 5, ..Server::new(keys(Order::Bytes), order) });
        assert_eq!(walk(Lister::new(store.clone(), "", Side::Source)).await.unwrap(), store.keys);
    }
}

#[tokio::test]
async fn obj_13_token_without_progress_is_an_error() {
    for tokens in [Tokens::Stuck, Tokens::Circle] {
        for order in [Order::Bytes, Order::Unknown] {
            let store = Arc::new(Server { tokens, ..Server::new(keys(Order::Bytes), order) });
            let failed = walk(Lister::new(store, "", Side::Source)).await.unwrap_err();
            assert_eq!(failed.kind, Kind::OutOfOrderListing, "{tokens:?} {order:?}");
        }
    }
}

#[tokio::test]
async fn obj_04_expired_token_loses_no_key_in_an_ordered_listing() {
    let store = Arc::new(Server { tokens: Tokens::Expire, ..Server::new(keys(Order::Bytes), Order::Bytes) });
    let met = walk(Lister::new(store.clone(), "", Side::Source)).await;
    assert_eq!(met.unwrap(), store.keys);
    let store =
        Arc::new(Server { tokens: Tokens::Expire, ..Server::new(keys(Order::Bytes), Order::Unknown) });
    assert_eq!(walk(Lister::new(store, "", Side::Source)).await.unwrap_err().kind, Kind::OutOfOrderListing);
}

#[tokio::test]
async fn obj_13_listing_with_rejected_tokens_ends() {
    for starts in STARTS {
        let store =
            Server { starts, tokens: Tokens::Refused, ..Server::new(keys(Order::Bytes), Order::Bytes) };
        let store = Arc::new(store);
        let met = walk(Lister::new(store.clone(), "", Side::Source)).await;
        match starts {
            // Nothing leads beyond its first page.
            Starts::Ignored | Starts::Refused => {
                assert_eq!(met.unwrap_err().kind, Kind::OutOfOrderListing, "{starts:?}");
            }
            Starts::Honoured | Starts::Inclusive => assert_eq!(met.unwrap(), store.keys, "{starts:?}"),
            Starts::SkipsBelow => {}
        }
    }
}

#[tokio::test]
async fn obj_13_rejected_token_repeats_the_request() {
    for order in [Order::Bytes, Order::Unknown] {
        let server = || {
            let server = Server::new(keys(Order::Bytes), order);
            Arc::new(Server { empty: 2, page: 100, tokens: Tokens::RefusedTwice, ..server })
        };
        assert!(is_listed(server(), &Key::from("m"), Side::Source).await.unwrap(), "{order:?}");
        let behind = first_key_after(&*server(), "", &Key::from("m")).await.unwrap();
        assert_eq!(behind, Some(Key::from("m/inside")), "{order:?}");
    }
}

#[tokio::test]
async fn obj_04_undeclared_order_is_detected() {
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..200 {
        let mut shuffled = keys(Order::Bytes);
        random.shuffle(&mut shuffled);
        let store = Arc::new(Server::new(shuffled.clone(), Order::Bytes));
        let sorted = shuffled.is_sorted();
        let met = walk(Lister::new(store.clone(), "", Side::Source)).await;
        assert_eq!(met.is_ok(), sorted);
        if let Err(failure) = met {
            // The weaker orders are tried one after another, and the last finds every key.
            while fall_back_to_weaker_order(&*store, &failure) {
                if let Ok(met) = walk(Lister::new(store.clone(), "", Side::Source)).await {
                    assert_eq!(met.into_iter().collect::<BTreeSet<_>>().len(), shuffled.len());
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn obj_04_keys_outside_the_prefix_are_rejected() {
    #[derive(Debug)]
    struct Stray;
    #[async_trait]
    impl ObjectStore for Stray {
        fn capability(&self) -> &Capability {
            &Capability::S3
        }
        fn location(&self) -> String {
            "stray".into()
        }
        async fn probe(&self, _: &str) -> Result<Probe> {
            unreachable!("only lists")
        }
        async fn list(&self, _: &ListRequest) -> Result<Page> {
            let server = Server::new(keys(Order::Bytes), Order::Bytes);
            server.list(&ListRequest { max: 1000, ..ListRequest::default() }).await
        }
        async fn head(&self, _: &Key, _: Option<u32>) -> Result<Meta> {
            unreachable!("only lists")
        }
        async fn read(&self, _: &Key, _: &ReadRequest) -> Result<Reading> {
            unreachable!("only lists")
        }
        async fn tags(&self, _: &Key) -> Result<Vec<(String, String)>> {
            unreachable!("only lists")
        }
        async fn buckets(&self) -> Result<Vec<String>> {
            unreachable!("only lists")
        }
    }
    let failed = walk(Lister::new(Arc::new(Stray), "m/", Side::Source)).await.unwrap_err();
    assert_eq!(failed.kind, Kind::Corrupt);
}

#[test]
fn predecessor_key_sorts_before_in_every_order() {
    for text in ["a", "a/", "a/b", "0", "a0", "a!", "ü", "a/0", "A", "~", "日本", "a/b/"] {
        let key = Key::from(text);
        let before = just_before(&key);
        for order in [Order::Bytes, Order::Segments] {
            assert!(
                order.compare(before.as_bytes(), key.as_bytes()).is_lt(),
                "{before} before {key} in {order:?}"
            );
        }
    }
}
