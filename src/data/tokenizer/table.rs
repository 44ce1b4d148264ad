//! The bytes of text that each token stands for.

/// By token, in one run of bytes; a token without any has no place.
#[derive(Debug, Default)]
pub(super) struct Table {
    bytes: Vec<u8>,
    /// Start and end by token.
    places: Vec<Option<(u32, u32)>>,
}

impl Table {
    /// Later ones of the same token take the place of earlier ones.
    pub(super) fn set(&mut self, id: u32, text: &[u8]) {
        let at = id as usize;
        if at >= self.places.len() {
            self.places.resize(at + 1, None);
        }
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(text);
        if let Some(place) = self.places.get_mut(at) {
            *place = Some((start, self.bytes.len() as u32));
        }
    }

    /// One above the largest token.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn get(&self, id: u32) -> Option<&[u8]> {
        let (start, end) = (*self.places.get(id as usize)?)?;
        self.bytes.get(start as usize..end as usize)
    }
}
