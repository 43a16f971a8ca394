//! Lists of byte strings that a role keeps for its life, as an environment is: one piece of memory for all of them,
//! shared by everybody who holds the list.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::ffi::CStr;
use std::fmt;
use std::io;
use std::sync::Arc;

/// A list of byte strings. It never changes, and a clone is the same memory.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Strings {
    inner: Arc<Inner>,
}

#[derive(Default, PartialEq, Eq)]
struct Inner {
    /// All of them, each with a NUL behind it.
    bytes: Box<[u8]>,
    /// Where each one's NUL is.
    ends: Box<[usize]>,
}

impl fmt::Debug for Strings {
    /// Shows how many there are: values of the environment are shown to nobody.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} strings", self.len())
    }
}

impl Strings {
    /// Copies them, with no more memory than they need.
    pub(crate) fn copy<'a>(strings: impl Iterator<Item = &'a [u8]> + Clone) -> Self {
        Self::join(strings.map(|string| [string]))
    }

    /// The same of strings that are in parts.
    pub(crate) fn join<'a, const PARTS: usize>(
        strings: impl Iterator<Item = [&'a [u8]; PARTS]> + Clone,
    ) -> Self {
        let length_of = |parts: [&[u8]; PARTS]| parts.iter().map(|part| part.len()).sum::<usize>() + 1;
        let length = strings.clone().map(length_of).sum();
        let (mut bytes, mut ends) = (Vec::with_capacity(length), Vec::with_capacity(strings.clone().count()));
        for parts in strings {
            parts.iter().for_each(|part| bytes.extend_from_slice(part));
            ends.push(bytes.len());
            bytes.push(0);
        }
        Self { inner: Arc::new(Inner { bytes: bytes.into(), ends: ends.into() }) }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.ends.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.ends.is_empty()
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let end = *self.inner.ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.inner.ends[before] + 1);
        self.inner.bytes.get(start..end)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.get(index).unwrap_or_default())
    }

    /// All of them for an exec.
    ///
    /// # Errors
    /// One of them holds a NUL byte.
    pub(crate) fn c_strings(&self) -> io::Result<Vec<&CStr>> {
        let mut strings = Vec::with_capacity(self.len());
        let mut start = 0;
        for end in &self.inner.ends {
            let string = CStr::from_bytes_with_nul(&self.inner.bytes[start..=*end]);
            let refused = |_| io::Error::new(io::ErrorKind::InvalidInput, "it holds a NUL byte");
            strings.push(string.map_err(refused)?);
            start = end + 1;
        }
        Ok(strings)
    }
}

impl<S: AsRef<[u8]>> FromIterator<S> for Strings {
    fn from_iter<I: IntoIterator<Item = S>>(strings: I) -> Self {
        let strings: Vec<S> = strings.into_iter().collect();
        Self::copy(strings.iter().map(AsRef::as_ref))
    }
}

/// All the bytes at once, and where each one's NUL is.
impl Serialize for Strings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (Bytes(&self.inner.bytes), &self.inner.ends).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Strings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (Bytes(bytes), ends) = <(Bytes<'de>, Box<[usize]>)>::deserialize(deserializer)?;
        let is_terminated = |end: &usize| bytes.get(*end) == Some(&0);
        let is_whole = ends.last().map_or(Some(0), |end| end.checked_add(1)) == Some(bytes.len());
        if !ends.is_sorted_by(|one, next| one < next) || !ends.iter().all(is_terminated) || !is_whole {
            return Err(de::Error::custom("no list of strings"));
        }
        Ok(Self { inner: Arc::new(Inner { bytes: bytes.into(), ends }) })
    }
}

/// Bytes that travel as a whole; else each of them is a value.
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // serde has this one form of borrowed bytes.
        <&'de [u8]>::deserialize(deserializer).map(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_what_it_was_made_of() {
        let words: [&[u8]; 4] = [b"A=1", b"", b"B=\xff", b"C="];
        let list: Strings = words.into_iter().collect();
        assert_eq!(list.iter().collect::<Vec<_>>(), words);
        assert_eq!((list.get(1), list.get(4)), (Some(&b""[..]), None));
        let for_exec: Vec<&[u8]> = list.c_strings().unwrap().iter().map(|word| word.to_bytes()).collect();
        assert_eq!(for_exec, words);
        let none = Strings::default();
        assert!(none.is_empty() && none.get(0).is_none() && none.c_strings().unwrap().is_empty());
    }

    #[test]
    fn a_nul_byte_travels_but_is_refused_for_an_exec() {
        let list: Strings = [&b"A=1\0B=2"[..], b"C=3"].into_iter().collect();
        let encoded = postcard::to_allocvec(&list).unwrap();
        let back: Strings = postcard::from_bytes(&encoded).unwrap();
        assert!(back == list && back.len() == 2);
        assert!(list.c_strings().is_err());
        let none = postcard::to_allocvec(&Strings::default()).unwrap();
        assert!(postcard::from_bytes::<Strings>(&none).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let read = |bytes: &[u8], ends: &[usize]| {
            postcard::from_bytes::<Strings>(&postcard::to_allocvec(&(Bytes(bytes), ends)).unwrap()).ok()
        };
        assert_eq!(read(b"a\0b\0", &[1, 3]).unwrap().iter().collect::<Vec<_>>(), [b"a", b"b"]);
        for ends in [&[1][..], &[3, 1], &[1, 1, 3], &[1, 4], &[2, 3], &[1, 3, 9], &[]] {
            assert!(read(b"a\0b\0", ends).is_none(), "{ends:?}");
        }
        assert!(read(b"", &[usize::MAX]).is_none());
    }
}
