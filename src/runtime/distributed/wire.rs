//! How what ranks tell each other is written: numbers in little endian, texts with their length before them.
//!
//! What is read may come from another program, so every length is checked.

/// What a reader found to be otherwise than it must be: its user makes a sentence of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Garbled;

/// Appends a number.
pub(super) fn put_u32(bytes: &mut Vec<u8>, value: u32) {
    bytes.extend(value.to_le_bytes());
}

/// Appends a text. What is longer than 4 GiB is cut: nothing that says something is.
pub(super) fn put_text(bytes: &mut Vec<u8>, text: &str) {
    let len = u32::try_from(text.len()).unwrap_or(u32::MAX);
    put_u32(bytes, len);
    bytes.extend(text.bytes().take(len as usize));
}

/// Reads what the functions above wrote.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Garbled> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(Garbled)?;
        self.0 = rest;
        Ok(head)
    }

    /// The next number.
    pub(super) fn u32(&mut self) -> Result<u32, Garbled> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().map_err(|_| Garbled)?))
    }

    /// The next number of 64 bits.
    pub(super) fn u64(&mut self) -> Result<u64, Garbled> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| Garbled)?))
    }

    /// The next text.
    pub(super) fn text(&mut self) -> Result<&'a str, Garbled> {
        let len = self.u32()? as usize;
        std::str::from_utf8(self.take(len)?).map_err(|_| Garbled)
    }

    /// Nothing may be left.
    pub(super) fn end(&self) -> Result<(), Garbled> {
        if self.0.is_empty() { Ok(()) } else { Err(Garbled) }
    }
}

/// The first message of each rank to each other. Its beginning must stay as it is in all versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hello {
    /// Of what ranks tell each other. A change of any message changes it.
    pub(super) protocol: u32,
    /// Of the program.
    pub(super) version: String,
    /// Host and process.
    pub(super) identity: String,
}

/// What ranks of this version tell each other.
pub(super) const PROTOCOL: u32 = 1;
const MAGIC: u32 = u32::from_le_bytes(*b"TFmr");

impl Hello {
    /// That of this process.
    pub(super) fn of_this(identity: String) -> Self {
        Self { protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").to_owned(), identity }
    }

    /// To send.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_u32(&mut bytes, MAGIC);
        put_u32(&mut bytes, self.protocol);
        put_text(&mut bytes, &self.version);
        put_text(&mut bytes, &self.identity);
        bytes
    }

    /// As sent. What newer versions add at the end is theirs.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Garbled> {
        let mut reader = Reader(bytes);
        if reader.u32()? != MAGIC {
            return Err(Garbled);
        }
        let protocol = reader.u32()?;
        Ok(Self { protocol, version: reader.text()?.to_owned(), identity: reader.text()?.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_cut_or_changed_is_read_beyond_its_end() {
        let hello = Hello::of_this("node7, process 4711".to_owned());
        let bytes = hello.bytes();
        assert_eq!(Hello::read(&bytes), Ok(hello));
        for end in 0..bytes.len() {
            assert_eq!(Hello::read(&bytes[..end]), Err(Garbled), "{end}");
        }
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 0xff;
            let _ = Hello::read(&other);
        }
        assert_eq!(Reader(&[255, 255, 255, 255, 0]).text(), Err(Garbled));
        assert_eq!(Reader(&[1, 0, 0, 0, 0xff]).text(), Err(Garbled));
    }
}
