//! Values in the head of a GGUF, as bytes.

/// A value in the head of a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Word(u32),
    Float(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    Integers(Vec<i32>),
}

/// A text, with its length before it.
pub(super) fn text(text: &str, head: &mut Vec<u8>) {
    head.extend((text.len() as u64).to_le_bytes());
    head.extend(text.as_bytes());
}

impl Value {
    /// Appends the value, with the number of its type before it.
    pub(super) fn write(&self, head: &mut Vec<u8>) {
        const LIST: u32 = 9;
        head.extend(match self {
            Self::Texts(_) | Self::Integers(_) => LIST.to_le_bytes(),
            one => one.kind().to_le_bytes(),
        });
        let mut list = |len: usize| {
            head.extend(self.kind().to_le_bytes());
            head.extend((len as u64).to_le_bytes());
        };
        match self {
            Self::Word(value) => head.extend(value.to_le_bytes()),
            Self::Float(value) => head.extend(value.to_le_bytes()),
            Self::Bool(value) => head.push(u8::from(*value)),
            Self::Text(value) => text(value, head),
            Self::Texts(all) => {
                list(all.len());
                all.iter().for_each(|one| text(one, head));
            }
            Self::Integers(all) => {
                list(all.len());
                all.iter().for_each(|one| head.extend(one.to_le_bytes()));
            }
        }
    }

    /// The number of its type, or of those in the list.
    fn kind(&self) -> u32 {
        match self {
            Self::Word(_) => 4,
            Self::Integers(_) => 5,
            Self::Float(_) => 6,
            Self::Bool(_) => 7,
            Self::Text(_) | Self::Texts(_) => 8,
        }
    }
}
