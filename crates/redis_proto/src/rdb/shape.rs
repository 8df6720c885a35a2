//! What values are made of: enough to find where each ends without decoding it.

use crate::rdb::cursor::{Cursor, Length, Read, Stop};

/// Whose format a file has: both give numbers from 20 on to types of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `REDIS…`
    Redis,
    /// `VALKEY…`
    Valkey,
}

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes.
    String,
    /// A list.
    List,
    /// A set.
    Set,
    /// A sorted set.
    SortedSet,
    /// A hash.
    Hash,
    /// A stream.
    Stream,
    /// A value of a module; opaque.
    Module,
}

/// How a value is written: the number of its type within its family (rdb.h, RDB_TYPE_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Type {
    /// Whose number it is.
    pub family: Family,
    /// The number.
    pub number: u8,
}

/// One step through a value.
#[derive(Clone, Copy, Debug)]
enum Op {
    /// A number.
    Number,
    /// A string.
    Text,
    /// So many bytes.
    Raw(u8),
    /// A floating point number as text.
    Double,
    /// A number, and so many times what follows.
    Times(&'static [Op]),
    /// What modules write: opcodes with their operands, until an end.
    Module,
}

use Op::{Double, Module, Number, Raw, Text, Times};

const PENDING: &[Op] = &[Raw(16), Raw(8), Number];
const ID: &[Op] = &[Raw(16)];

/// What type 22 and 24 look like, and who writes them so.
const STREAM_1: &[Op] = &[
    Times(&[Text, Text]),
    Number,
    Number,
    Number,
    Times(&[Text, Number, Number, Times(PENDING), Times(&[Text, Raw(8), Times(ID)])]),
];
const STREAM_2: &[Op] = &[
    Times(&[Text, Text]),
    Number,
    Number,
    Number,
    Number,
    Number,
    Number,
    Number,
    Number,
    Times(&[Text, Number, Number, Number, Times(PENDING), Times(&[Text, Raw(8), Times(ID)])]),
];
const STREAM_3: &[Op] = &[
    Times(&[Text, Text]),
    Number,
    Number,
    Number,
    Number,
    Number,
    Number,
    Number,
    Number,
    Times(&[Text, Number, Number, Number, Times(PENDING), Times(&[Text, Raw(8), Raw(8), Times(ID)])]),
];

impl Type {
    /// What it holds; none for a number that this version does not know.
    pub fn kind(self) -> Option<Kind> {
        Some(match (self.number, self.family) {
            (0, _) => Kind::String,
            (1 | 10 | 14 | 18, _) => Kind::List,
            (2 | 11 | 20, _) => Kind::Set,
            (3 | 5 | 12 | 17, _) => Kind::SortedSet,
            (4 | 9 | 13 | 16, _) => Kind::Hash,
            (22..=25, Family::Redis) | (22, Family::Valkey) => Kind::Hash,
            (15 | 19 | 21, _) => Kind::Stream,
            (7, _) => Kind::Module,
            _ => return None,
        })
    }

    /// The version of the format that brought it: a server of an older one cannot take it.
    pub fn since(self) -> u16 {
        match (self.number, self.family) {
            (0..=4, _) => 1,
            (9, _) => 2,
            (10..=12, _) => 2,
            (13, _) => 4,
            (14, _) => 7,
            (5 | 7, _) => 8,
            (15, _) => 9,
            (16..=19, _) => 10,
            (20 | 21, _) => 11,
            (_, Family::Redis) => 12,
            (_, Family::Valkey) => 80,
        }
    }

    /// True when its bytes mean the same to both families.
    pub fn is_common(self) -> bool {
        self.number <= 21
    }

    fn shape(self) -> Option<&'static [Op]> {
        Some(match (self.number, self.family) {
            (0 | 9..=13 | 16 | 17 | 20, _) => &[Text],
            (1 | 2 | 14, _) => &[Times(&[Text])],
            (3, _) => &[Times(&[Text, Double])],
            (4, _) => &[Times(&[Text, Text])],
            (5, _) => &[Times(&[Text, Raw(8)])],
            (7, _) => &[Number, Module],
            (15, _) => STREAM_1,
            (18, _) => &[Times(&[Number, Text])],
            (19, _) => STREAM_2,
            (21, _) => STREAM_3,
            // Field expiries: of the release candidates of 7.4 (22, 23) and of 7.4 (24, 25).
            (22, Family::Redis) => &[Times(&[Number, Text, Text])],
            (23, Family::Redis) => &[Text],
            (24, Family::Redis) => &[Raw(8), Times(&[Number, Text, Text])],
            (25, Family::Redis) => &[Raw(8), Text],
            (22, Family::Valkey) => &[Times(&[Text, Text, Raw(8)])],
            _ => return None,
        })
    }
}

/// True for a collection that holds nothing: old servers wrote such, and servers skip them when they load a file.
/// Nothing is expanded for it.
pub fn is_empty(kind: Type, raw: &[u8]) -> bool {
    holds_nothing(kind, &mut Cursor::new(raw)).unwrap_or(false)
}

/// Length of an empty ziplist, bytes (ziplist.c).
const ZIPLIST: u64 = 11;
/// Length of an empty intset, bytes (intset.c).
const INTSET: u64 = 8;
/// Length of an empty listpack, bytes (listpack.c).
const LISTPACK: u64 = 7;
/// Length of an empty zipmap, bytes (zipmap.c).
const ZIPMAP: u64 = 2;

fn holds_nothing(kind: Type, cursor: &mut Cursor<'_>) -> Read<bool> {
    Ok(match (kind.number, kind.family) {
        (1..=5, _) | (22, _) => cursor.number()? == 0,
        (24, Family::Redis) => {
            cursor.take(8)?;
            cursor.number()? == 0
        }
        (9, _) => expanded(cursor)? <= ZIPMAP,
        (11, _) => expanded(cursor)? <= INTSET,
        (10 | 12 | 13, _) => expanded(cursor)? <= ZIPLIST,
        (16 | 17 | 20, _) | (23, Family::Redis) => expanded(cursor)? <= LISTPACK,
        (25, Family::Redis) => {
            cursor.take(8)?;
            expanded(cursor)? <= LISTPACK
        }
        (14, _) => {
            for _ in 0..cursor.number()? {
                if expanded(cursor)? > ZIPLIST {
                    return Ok(false);
                }
            }
            true
        }
        (18, _) => {
            /// Container of a quicklist node that is a listpack (quicklist.h).
            const PACKED: u64 = 2;
            for _ in 0..cursor.number()? {
                if cursor.number()? != PACKED || expanded(cursor)? > LISTPACK {
                    return Ok(false);
                }
            }
            true
        }
        // A string and a stream without entries are values; of modules nobody knows.
        _ => false,
    })
}

/// Passes over a string; answers how long it is when it is expanded.
fn expanded(cursor: &mut Cursor<'_>) -> Read<u64> {
    Ok(match cursor.length()? {
        Length::Plain(n) => {
            cursor.take(usize::try_from(n).map_err(|_| Stop::Short)?)?;
            n
        }
        // No encoded collection is a number.
        Length::Int(width) => {
            cursor.take(usize::from(width))?;
            u64::MAX
        }
        Length::Lzf => {
            let (packed, n) = (cursor.number()?, cursor.number()?);
            cursor.take(usize::try_from(packed).map_err(|_| Stop::Short)?)?;
            n
        }
    })
}

/// A walk through the bytes of one value, as far as they are there; it never goes over a byte twice.
#[derive(Debug)]
pub(crate) struct Walk {
    /// What is left to do, innermost last: steps, how many of them are done, how often to repeat.
    left: Vec<(&'static [Op], usize, u64)>,
    /// Bytes from the value's beginning up to where the walk is; may lie behind what is there.
    pub(crate) at: u64,
}

impl Walk {
    /// A walk through a value of a type; none for a type that this version does not know.
    pub(crate) fn new(kind: Type) -> Option<Self> {
        Some(Self { left: vec![(kind.shape()?, 0, 1)], at: 0 })
    }

    /// A walk through auxiliary data of a module.
    pub(crate) fn module() -> Self {
        Self { left: vec![(&[Module], 0, 1)], at: 0 }
    }

    /// Goes on through `buf`, which begins where the value begins; true at its end.
    pub(crate) fn go(&mut self, buf: &[u8]) -> Read<bool> {
        loop {
            let Some((ops, done, times)) = self.left.last_mut() else {
                return Ok(self.at <= buf.len() as u64);
            };
            if *times == 0 {
                self.left.pop();
                continue;
            }
            let Some(op) = ops.get(*done).copied() else {
                (*done, *times) = (0, *times - 1);
                continue;
            };
            let Some(rest) = usize::try_from(self.at).ok().filter(|at| *at <= buf.len()) else {
                return Ok(false);
            };
            let mut cursor = Cursor { buf, at: rest };
            let step = step(op, &mut cursor);
            let ahead = match step {
                Ok(ahead) => ahead,
                Err(Stop::Short) => return Ok(false),
                Err(wrong) => return Err(wrong),
            };
            match (op, &ahead) {
                // Opcodes of a module go on until their end.
                (Module, Ahead::Nothing) => {}
                _ => *done += 1,
            }
            self.at = cursor.at as u64;
            match ahead {
                Ahead::Bytes(n) => {
                    let at = self.at.checked_add(n);
                    self.at = match at {
                        Some(at) => at,
                        None => return cursor.wrong("invalid string length"),
                    };
                }
                Ahead::Repeat(inner, n) => self.left.push((inner, 0, n)),
                Ahead::Nothing | Ahead::Over => {}
            }
        }
    }
}

/// What one step found.
enum Ahead {
    /// Nothing more.
    Nothing,
    /// Bytes to skip.
    Bytes(u64),
    /// Steps to repeat.
    Repeat(&'static [Op], u64),
    /// The end of a module's opcodes.
    Over,
}

fn step(op: Op, cursor: &mut Cursor<'_>) -> Read<Ahead> {
    Ok(match op {
        Number => {
            cursor.number()?;
            Ahead::Nothing
        }
        Text => text(cursor)?,
        Raw(n) => Ahead::Bytes(u64::from(n)),
        Double => match cursor.byte()? {
            253..=255 => Ahead::Nothing,
            n => Ahead::Bytes(u64::from(n)),
        },
        Times(inner) => Ahead::Repeat(inner, cursor.count()?),
        // rdb.h, RDB_MODULE_OPCODE_*
        Module => match cursor.number()? {
            0 => Ahead::Over,
            1 | 2 => {
                cursor.number()?;
                Ahead::Nothing
            }
            3 => module_bytes(cursor, 4)?,
            4 => module_bytes(cursor, 8)?,
            5 => {
                cursor.raw_string()?;
                Ahead::Nothing
            }
            other => return cursor.wrong(format!("{other} is not a module opcode")),
        },
    })
}

fn module_bytes(cursor: &mut Cursor<'_>, n: usize) -> Read<Ahead> {
    cursor.take(n)?;
    Ok(Ahead::Nothing)
}

fn text(cursor: &mut Cursor<'_>) -> Read<Ahead> {
    Ok(Ahead::Bytes(match cursor.length()? {
        Length::Plain(n) => n,
        Length::Int(width) => u64::from(width),
        Length::Lzf => {
            let packed = cursor.number()?;
            cursor.number()?;
            packed
        }
    }))
}

impl Cursor<'_> {
    /// Passes over a string that is there completely.
    pub(crate) fn raw_string(&mut self) -> Read<()> {
        if let Ahead::Bytes(n) = text(self)? {
            self.take(usize::try_from(n).map_err(|_| Stop::Short)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn red_09_empty_collections_are_detected() {
        let text = |s: &[u8]| [&[u8::try_from(s.len()).unwrap()][..], s].concat();
        let ziplist = text(b"\x0b\0\0\0\x0a\0\0\0\0\0\xff");
        let listpack = text(b"\x07\0\0\0\0\0\xff");
        let full = text(b"\x09\0\0\0\x01\0\x01\x01\xff");
        let intset = text(b"\x02\0\0\0\0\0\0\0");
        let (zero, some) = (vec![0], vec![1]);
        let redis = |number| Type { family: Family::Redis, number };
        for (number, raw, want) in [
            (1, zero.clone(), true),
            (2, zero.clone(), true),
            (3, zero.clone(), true),
            (4, zero.clone(), true),
            (5, zero.clone(), true),
            (4, [&some[..], b"\x01f\x01v"].concat(), false),
            (10, ziplist.clone(), true),
            (12, ziplist.clone(), true),
            (13, ziplist.clone(), true),
            (11, intset, true),
            (16, listpack.clone(), true),
            (17, listpack.clone(), true),
            (20, listpack.clone(), true),
            (16, full.clone(), false),
            (14, zero.clone(), true),
            (14, [&[2][..], &ziplist, &ziplist].concat(), true),
            (14, [&[2][..], &ziplist, &text(&[0; 20])].concat(), false),
            (18, zero.clone(), true),
            (18, [&[1, 2][..], &listpack].concat(), true),
            (18, [&[1, 1][..], &listpack].concat(), false),
            (24, [&[0; 8][..], &zero].concat(), true),
            (25, [&[0; 8][..], &listpack].concat(), true),
            (25, [&[0; 8][..], &full].concat(), false),
            // What is shorter than it says, a string and a stream are never empty.
            (10, vec![], false),
            (0, zero.clone(), false),
            (21, zero, false),
        ] {
            assert_eq!(is_empty(redis(number), &raw), want, "{number} {raw:?}");
        }
    }
}
