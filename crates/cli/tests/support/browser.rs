//! A browser without script: cookies, forms, and the headers that a browser sends with them.

#![allow(clippy::disallowed_methods, reason = "a test is a client of the service")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::Service;

/// A page is waited for so long.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// A state is waited for so long: disks and processors of a busy machine are slow.
const STATE_TIMEOUT: Duration = Duration::from_secs(90);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A browser that looks at one service.
pub(crate) struct Browser {
    host: String,
    pub(crate) cookies: BTreeMap<String, String>,
    /// The token of the forms of the page that was loaded last.
    pub(crate) csrf: String,
}

#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Page {
    pub(crate) fn header(&self, name: &str) -> &str {
        let is_named = |line: &&str| line.split(':').next().is_some_and(|n| n.eq_ignore_ascii_case(name));
        let line = self.head.lines().find(is_named).unwrap_or_default();
        line.split_once(':').map_or("", |(_, value)| value.trim())
    }

    /// The value of the first field of this name.
    pub(crate) fn field(&self, name: &str) -> String {
        let after = self.body.split_once(&format!("name=\"{name}\" value=\"")).map_or("", |(_, rest)| rest);
        after.split('"').next().unwrap_or_default().to_owned()
    }

    /// Without elements, for tests of what is said.
    pub(crate) fn says(&self, text: &str) -> bool {
        self.body.contains(text)
    }
}

fn encoded(text: &str) -> String {
    let one = |b: u8| match b {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => (b as char).to_string(),
        b => format!("%{b:02X}"),
    };
    text.bytes().map(one).collect()
}

/// Fields as a form sends them.
pub(crate) fn fields(all: &[(&str, &str)]) -> String {
    all.iter().map(|(n, v)| format!("{}={}", encoded(n), encoded(v))).collect::<Vec<_>>().join("&")
}

impl Browser {
    pub(crate) fn new(service: &Service) -> Self {
        let host = service.endpoint.trim_start_matches("http://").to_owned();
        Self { host, cookies: BTreeMap::new(), csrf: String::new() }
    }

    /// A browser in which `admin` has signed in.
    pub(crate) fn signed_in(service: &Service) -> Self {
        let mut browser = Self::new(service);
        let page = browser.sign_in("admin", &service.password());
        assert_eq!((page.status, page.header("location")), (303, "/console/"), "{page:?}");
        browser.get("/console/");
        browser
    }

    /// Fills in the form of the sign-in.
    pub(crate) fn sign_in(&mut self, user: &str, password: &str) -> Page {
        self.get("/console/signin");
        self.post("/console/signin", &[("user", user), ("password", password)])
    }

    fn send(&mut self, request: &str) -> Page {
        let mut stream = TcpStream::connect(&self.host).unwrap();
        stream.set_read_timeout(Some(PAGE_TIMEOUT)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        let all = String::from_utf8_lossy(&all).into_owned();
        let (head, body) = all.split_once("\r\n\r\n").unwrap_or((&all, ""));
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("{all}"));
        for line in head.lines().filter(|l| l.to_ascii_lowercase().starts_with("set-cookie:")) {
            let pair = line.split_once(':').unwrap().1.split(';').next().unwrap();
            let (name, value) = pair.trim().split_once('=').unwrap();
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        let page = Page { status, head: head.to_owned(), body: body.to_owned() };
        let csrf = page.field("csrf");
        if !csrf.is_empty() {
            self.csrf = csrf;
        }
        page
    }

    fn cookie_header(&self) -> String {
        let all: Vec<String> = self.cookies.iter().map(|(n, v)| format!("{n}={v}")).collect();
        if all.is_empty() { String::new() } else { format!("Cookie: {}\r\n", all.join("; ")) }
    }

    pub(crate) fn get(&mut self, path: &str) -> Page {
        let (host, cookies) = (self.host.clone(), self.cookie_header());
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{cookies}\r\n"))
    }

    /// Sends a form of the page that was loaded last.
    pub(crate) fn post(&mut self, path: &str, form: &[(&str, &str)]) -> Page {
        let csrf = self.csrf.clone();
        let all: Vec<_> = [("csrf", csrf.as_str())].into_iter().chain(form.iter().copied()).collect();
        self.post_with(path, &fields(&all), "Sec-Fetch-Site: same-origin\r\n")
    }

    /// Sends a body with these headers.
    pub(crate) fn post_with(&mut self, path: &str, body: &str, headers: &str) -> Page {
        let (host, cookies) = (self.host.clone(), self.cookie_header());
        self.send(&format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n{headers}{cookies}\r\n{body}",
            body.len()
        ))
    }

    /// Loads a page until it contains a text.
    pub(crate) fn wait_for(&mut self, path: &str, text: &str) -> Page {
        let began = Instant::now();
        loop {
            let page = self.get(path);
            if page.says(text) {
                return page;
            }
            let main = page.body.split_once("<main").map_or("", |(_, rest)| rest);
            assert!(began.elapsed() < STATE_TIMEOUT, "no `{text}` on {path}:\n{main:.3000}");
            std::thread::park_timeout(POLL_INTERVAL);
        }
    }

    /// Opens a stream of events.
    pub(crate) fn open(&self, path: &str) -> Events {
        let mut stream = TcpStream::connect(&self.host).unwrap();
        stream.set_read_timeout(Some(PAGE_TIMEOUT)).unwrap();
        let (host, cookies) = (&self.host, self.cookie_header());
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{cookies}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        Events { stream, all: String::new() }
    }

    /// Reads a stream of events until it contains a text.
    pub(crate) fn listen(&self, path: &str, text: &str) -> String {
        self.open(path).read_until(text)
    }
}

/// A stream of events.
pub(crate) struct Events {
    stream: TcpStream,
    all: String,
}

impl Events {
    /// Everything up to a text.
    pub(crate) fn read_until(&mut self, text: &str) -> String {
        let (mut some, began) = ([0; 4096], Instant::now());
        while !self.all.contains(text) {
            assert!(began.elapsed() < PAGE_TIMEOUT, "no `{text}` in {}", self.all);
            let n = self.stream.read(&mut some).unwrap();
            assert!(n > 0, "the stream ended without `{text}`: {}", self.all);
            self.all.push_str(&String::from_utf8_lossy(&some[..n]));
        }
        self.all.clone()
    }

    /// Waits until the service ends the stream.
    pub(crate) fn read_to_end(&mut self) {
        let (mut some, began) = ([0; 4096], Instant::now());
        while self.stream.read(&mut some).unwrap() > 0 {
            assert!(began.elapsed() < PAGE_TIMEOUT, "the stream goes on");
        }
    }
}
