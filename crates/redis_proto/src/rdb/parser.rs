//! The stream: header, opcodes, keys and the spans of their values, the checksum at the end.

mod prefix;

use std::borrow::Cow;

use crc_fast::{CrcAlgorithm, Digest};

use crate::error::{ProtocolError, Result};
use crate::rdb::cursor::{Cursor, Length, Read, Stop};
use crate::rdb::decode::{Decoder, Element, Next};
use crate::rdb::shape::{Family, Kind, Type, Walk};
use prefix::{behind, magic, prefix, skip_string};

/// The newest versions that can be read.
/// Of newer versions everything is read whose type is known. Valkey begins at 80, and what lies between is Redis'.
const NEWEST: [(Family, u16); 2] = [(Family::Redis, 79), (Family::Valkey, 999)];
/// A buffer that has grown for a large value is given back when it is empty and larger than this.
const KEEP: usize = 1 << 20;
/// Longest key, and longest name or value of auxiliary data, bytes.
const SMALL_MAX: u64 = 512 << 20;

/// What stands before a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyHeader<'b> {
    /// The key.
    pub key: Cow<'b, [u8]>,
    /// How the value is written.
    pub kind: Type,
    /// When it expires, milliseconds since the epoch.
    pub expire_ms: Option<i64>,
    /// Seconds since its last use, where the server keeps that (LRU).
    pub idle: Option<u64>,
    /// How often it is used, logarithmic, where the server keeps that (LFU).
    pub freq: Option<u8>,
    /// Offset of the value's first byte in the stream.
    pub offset: u64,
}

/// What comes out of the stream, in its order.
#[derive(Clone, Debug, PartialEq)]
pub enum Item<'b> {
    /// The beginning: whose format, which version.
    Begin(Family, u16),
    /// Something that the server says of itself or of the file.
    Aux(Cow<'b, [u8]>, Cow<'b, [u8]>),
    /// Keys that follow are in this database.
    Db(u64),
    /// How many keys the database has, and how many of them expire.
    Sizes(u64, u64),
    /// How many keys a slot has, and how many of them expire.
    Slot(u64, u64, u64),
    /// The source of a library of functions.
    Function(Cow<'b, [u8]>),
    /// Auxiliary data of a module: its id, and whether it is before or after the keys.
    ModuleAux(u64, u64),
    /// A key with its whole value, as it is written.
    Value(KeyHeader<'b>, &'b [u8]),
    /// A key whose value is longer than the bound: its elements follow, then [`Item::Close`].
    Open(KeyHeader<'b>),
    /// An element of an open value.
    Element(Element<'b>),
    /// A piece of an open string.
    Piece(&'b [u8]),
    /// The end of an open value.
    Close,
    /// The end of the file; its checksum is good, or it has none.
    End,
}

#[derive(Debug)]
enum State {
    /// The nine or ten bytes at the beginning.
    Magic,
    /// Between values.
    Between,
    /// Within a value whose head is known: its length within the buffer, and the walk to its end.
    Value(usize, Walk),
    /// Within an open value.
    Open(Box<Decoder>),
    /// Within an open string: bytes left.
    Pieces(u64),
    /// Behind the end.
    Over,
}

/// A buffer of this length is large, bytes.
const LARGE: usize = 4 << 20;
/// Room that is given at once, at the most, bytes.
const LONGEST: usize = 64 << 20;

/// Reads a stream of RDB from bytes as they come.
#[derive(Debug)]
pub struct Parser {
    buf: Vec<u8>,
    /// The next item begins here.
    at: usize,
    /// Bytes of the stream before the buffer.
    before: u64,
    /// The checksum has seen the buffer up to here.
    summed: usize,
    sum: Digest,
    check: bool,
    version: (Family, u16),
    state: State,
    /// Values longer than this come open.
    open_above: u64,
}

/// What was found at the beginning of the rest, with owned parts only: borrowed once the parser is done with itself.
enum Found {
    Item(usize, Small),
    Value { head: usize, len: usize },
    Open { head: usize },
    Elements,
    Piece(usize),
    Short,
}

enum Small {
    Begin,
    Aux,
    Db(u64),
    Sizes(u64, u64),
    Slot(u64, u64, u64),
    Function,
    OldFunction,
    ModuleAux(u64, u64),
    Close,
    End,
}

impl Parser {
    /// A parser whose values come open when they are longer than `open_above` bytes.
    pub fn new(open_above: u64) -> Self {
        Self {
            buf: Vec::new(),
            at: 0,
            before: 0,
            summed: 0,
            sum: Digest::new(CrcAlgorithm::Crc64Redis),
            check: true,
            version: (Family::Redis, 0),
            state: State::Magic,
            open_above,
        }
    }

    /// Bytes of the stream that have been given out as items.
    pub fn offset(&self) -> u64 {
        self.before + self.at as u64
    }

    /// True behind the end of the file.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Bytes that wait in the buffer.
    pub fn waiting(&self) -> usize {
        self.buf.len() - self.at
    }

    /// Whose format it is, and which version, once that is known.
    pub fn version(&self) -> (Family, u16) {
        self.version
    }

    /// Takes further bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.make_room();
        // A buffer that is large already is given room for the longest value at once: to grow by copies would need the memory
        // of two.
        if self.buf.len() > LARGE && self.buf.capacity() - self.buf.len() < bytes.len() {
            let longest = usize::try_from(self.open_above).unwrap_or(usize::MAX).min(LONGEST);
            let room = longest.saturating_sub(self.buf.len()).max(self.buf.len() / 4);
            self.buf.reserve_exact(room + bytes.len());
        }
        self.buf.extend_from_slice(bytes);
    }

    /// What is behind the end of the file, when more was pushed than belonged to it.
    pub fn rest(&self) -> &[u8] {
        match self.state {
            State::Over => &self.buf[self.at..],
            _ => &[],
        }
    }

    /// Forgets what has been given out.
    fn make_room(&mut self) {
        if self.at == 0 {
            return;
        }
        self.add_up(self.at);
        self.before += self.at as u64;
        if self.at == self.buf.len() {
            self.buf.clear();
            if self.buf.capacity() > KEEP {
                self.buf.shrink_to(KEEP);
            }
        } else {
            self.buf.drain(..self.at);
            if self.buf.capacity() > LARGE && self.buf.len() < KEEP {
                self.buf.shrink_to(KEEP);
            }
        }
        self.summed = 0;
        self.at = 0;
    }

    fn add_up(&mut self, to: usize) {
        if self.check && to > self.summed {
            self.sum.update(&self.buf[self.summed..to]);
        }
        self.summed = to.max(self.summed);
    }

    /// The next item; none when more bytes are needed, or behind the end.
    ///
    /// # Errors
    /// [`ProtocolError`] with the offset of what is wrong. The parser is of no use then.
    pub fn next_item(&mut self) -> Result<Option<Item<'_>>> {
        if matches!(self.state, State::Over) {
            return Ok(None);
        }
        let base = self.offset();
        let found = match self.find() {
            Ok(found) => found,
            Err(Stop::Short) => Found::Short,
            Err(Stop::Wrong(error)) => return Err(error.behind(base)),
        };
        let from = self.at;
        match found {
            Found::Short => Ok(None),
            Found::Item(len, small) => {
                self.at += len;
                self.small(from, small).map(Some)
            }
            Found::Value { head, len } => {
                self.at += head + len;
                self.state = State::Between;
                let head_of = self.head_at(from, base)?;
                Ok(Some(Item::Value(head_of, &self.buf[from + head..from + head + len])))
            }
            Found::Open { head } => {
                self.at += head;
                self.head_at(from, base).map(|head| Some(Item::Open(head)))
            }
            Found::Piece(len) => {
                self.at += len;
                Ok(Some(Item::Piece(&self.buf[from..from + len])))
            }
            Found::Elements => self.element(base),
        }
    }

    fn element(&mut self, base: u64) -> Result<Option<Item<'_>>> {
        let State::Open(decoder) = &mut self.state else { return Ok(None) };
        let next = decoder.next(&self.buf[self.at..]);
        let (used, next) = match next {
            Ok(next) => next,
            Err(Stop::Short) => return Ok(None),
            Err(Stop::Wrong(error)) => return Err(error.behind(base)),
        };
        self.at += used;
        Ok(match next {
            Next::Element(element) => Some(Item::Element(element)),
            Next::End => {
                self.state = State::Between;
                Some(Item::Close)
            }
            Next::Short => None,
        })
    }

    /// Looks at what begins at `self.at`.
    fn find(&mut self) -> Read<Found> {
        let rest = &self.buf[self.at..];
        match &mut self.state {
            State::Magic => {
                let (family, version, len) = magic(rest)?;
                let newest = NEWEST.iter().find(|(f, _)| *f == family).map_or(0, |(_, v)| *v);
                if version < 1 || version > newest {
                    let m = format!("unsupported RDB version {version} (1 to {newest} are supported)");
                    return Err(Stop::Wrong(ProtocolError::new(0, m).newer()));
                }
                self.version = (family, version);
                // Versions before 5 have no checksum (rdb.c, rdbLoadRio).
                self.check = version >= 5;
                self.state = State::Between;
                Ok(Found::Item(len, Small::Begin))
            }
            State::Between => self.between(),
            State::Value(head, walk) => {
                let value = &rest[*head..];
                if walk.go(value).map_err(|stop| behind(stop, *head))? {
                    let found = Found::Value { head: *head, len: usize::try_from(walk.at).unwrap_or(0) };
                    return Ok(found);
                }
                if walk.at.max(value.len() as u64) <= self.open_above {
                    return Ok(Found::Short);
                }
                self.open()
            }
            State::Open(_) => Ok(Found::Elements),
            State::Pieces(0) => {
                self.state = State::Between;
                Ok(Found::Item(0, Small::Close))
            }
            State::Pieces(left) => {
                if rest.is_empty() {
                    return Ok(Found::Short);
                }
                let len = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                *left -= len as u64;
                Ok(Found::Piece(len))
            }
            State::Over => Ok(Found::Short),
        }
    }

    /// A value that is too long to wait for its end.
    fn open(&mut self) -> Read<Found> {
        let State::Value(head, _) = self.state else { return Ok(Found::Short) };
        let rest = &self.buf[self.at..];
        let kind = prefix(&mut Cursor::new(rest), self.version.0)?.kind;
        match kind.kind() {
            Some(Kind::String) => {
                let mut cursor = Cursor { buf: rest, at: head };
                match cursor.length()? {
                    Length::Plain(n) => {
                        self.state = State::Pieces(n);
                        Ok(Found::Open { head: cursor.at })
                    }
                    // Compressed: it is expanded whole, from far fewer bytes.
                    _ => Ok(Found::Short),
                }
            }
            // Nobody can cut a value of a module.
            Some(Kind::Module) | None => Ok(Found::Short),
            Some(_) => match Decoder::new(kind) {
                Some(decoder) => {
                    self.state = State::Open(Box::new(decoder));
                    Ok(Found::Open { head })
                }
                None => Ok(Found::Short),
            },
        }
    }

    fn between(&mut self) -> Read<Found> {
        let mut cursor = Cursor::new(&self.buf[self.at..]);
        let opcode = cursor.byte()?;
        // rdb.h, RDB_OPCODE_*
        let small = match opcode {
            0xff if !self.check => return Ok(Found::Item(1, Small::End)),
            0xff => {
                cursor.take(8)?;
                Small::End
            }
            0xfe => Small::Db(cursor.number()?),
            0xfb => Small::Sizes(cursor.number()?, cursor.number()?),
            0xfa => {
                self.bounded(&cursor)?;
                cursor.raw_string()?;
                cursor.raw_string()?;
                Small::Aux
            }
            0xf7 => match module_aux(&mut cursor)? {
                Some(small) => small,
                None => return Ok(Found::Short),
            },
            0xf5 => {
                self.bounded(&cursor)?;
                cursor.raw_string()?;
                Small::Function
            }
            0xf6 => {
                self.bounded(&cursor)?;
                old_function(&mut cursor)?;
                Small::OldFunction
            }
            0xf4 => Small::Slot(cursor.number()?, cursor.number()?, cursor.number()?),
            _ => return self.begin_key(),
        };
        Ok(Found::Item(cursor.at, small))
    }

    /// A key begins here, with its expiry and its type.
    fn begin_key(&mut self) -> Read<Found> {
        let family = self.version.0;
        let mut cursor = Cursor::new(&self.buf[self.at..]);
        let prefix = prefix(&mut cursor, family)?;
        let Some(walk) = Walk::new(prefix.kind) else {
            let m = match prefix.kind.number {
                number @ 100.. => format!(
                    "value type {number} is not a type of Redis or Valkey (Redis Enterprise writes such types)"
                ),
                number => format!("unknown value type {number} of {family:?}"),
            };
            return Err(Stop::Wrong(ProtocolError::new(prefix.type_at as u64, m).newer()));
        };
        self.state = State::Value(cursor.at, walk);
        self.find()
    }

    /// Auxiliary strings are not buffered without a limit.
    fn bounded(&self, cursor: &Cursor<'_>) -> Read<()> {
        skip_string(&mut cursor.clone())
            .or_else(|stop| if let Stop::Short = stop { Ok(()) } else { Err(stop) })
    }

    fn head_at(&self, from: usize, base: u64) -> Result<KeyHeader<'_>> {
        let mut cursor = Cursor::new(&self.buf[from..]);
        let prefix = super::cursor::complete(prefix(&mut cursor, self.version.0), self.buf.len() - from);
        let prefix = prefix.map_err(|e| e.behind(base))?;
        Ok(KeyHeader {
            key: prefix.key,
            kind: prefix.kind,
            expire_ms: prefix.expire_ms,
            idle: prefix.idle,
            freq: prefix.freq,
            offset: base + cursor.at as u64,
        })
    }

    fn small(&mut self, from: usize, small: Small) -> Result<Item<'_>> {
        let base = self.before + from as u64;
        if let Small::End = small {
            let end = if self.check { self.at - 8 } else { self.at };
            self.add_up(end);
            if self.check {
                let mut stored = [0; 8];
                stored.copy_from_slice(&self.buf[end..self.at]);
                let (stored, sum) = (u64::from_le_bytes(stored), self.sum.finalize());
                // A server that is told not to compute checksums writes zero.
                if stored != 0 && stored != sum {
                    let m = format!("checksum mismatch: stored {stored:016x}, computed {sum:016x}");
                    return Err(ProtocolError::new(self.before + end as u64, m));
                }
            }
            self.state = State::Over;
            return Ok(Item::End);
        }
        let mut cursor = Cursor::new(&self.buf[from..self.at]);
        cursor.at = 1.min(cursor.buf.len());
        let len = cursor.buf.len();
        let mut text = || super::cursor::complete(cursor.string(), len).map_err(|e| e.behind(base));
        Ok(match small {
            Small::Begin => Item::Begin(self.version.0, self.version.1),
            Small::Aux => Item::Aux(text()?, text()?),
            Small::Db(db) => Item::Db(db),
            Small::Sizes(keys, expires) => Item::Sizes(keys, expires),
            Small::Slot(slot, keys, expires) => Item::Slot(slot, keys, expires),
            Small::Function => Item::Function(text()?),
            Small::OldFunction => {
                let (name, engine) = (text()?, text()?);
                let described = super::cursor::complete(cursor.number(), len).map_err(|e| e.behind(base))?;
                let mut text = || super::cursor::complete(cursor.string(), len).map_err(|e| e.behind(base));
                if described != 0 {
                    text()?;
                }
                let code = [b"#!", &*engine, b" name=", &*name, b"\n", &*text()?].concat();
                Item::Function(Cow::Owned(code))
            }
            Small::ModuleAux(id, when) => Item::ModuleAux(id, when),
            Small::Close => Item::Close,
            Small::End => Item::End,
        })
    }
}
/// Auxiliary data of a module; none when more bytes are needed.
fn module_aux(cursor: &mut Cursor<'_>) -> Read<Option<Small>> {
    let id = cursor.number()?;
    // The moment is written as an unsigned number of modules: opcode 2.
    cursor.number()?;
    let when = cursor.number()?;
    let mut walk = Walk::module();
    let begin = cursor.at;
    if !walk.go(&cursor.buf[begin..]).map_err(|s| behind(s, begin))? {
        return Ok(None);
    }
    cursor.at = begin + usize::try_from(walk.at).unwrap_or(0);
    Ok(Some(Small::ModuleAux(id, when)))
}

/// A function as release candidates of 7.0 wrote it: name, engine, whether there is a description, the source.
fn old_function(cursor: &mut Cursor<'_>) -> Read<()> {
    cursor.raw_string()?;
    cursor.raw_string()?;
    if cursor.number()? != 0 {
        cursor.raw_string()?;
    }
    cursor.raw_string()?;
    Ok(())
}
