//! Parameter blocks: the sizes, offsets and flags that a kernel reads at binding 0.
//!
//! Each is a struct with the name and the fields of the WGSL struct of the same kernel. [`parameter_block`] writes the
//! fields down once: they are the Rust struct, the list that `tests/shaders/layouts.rs` holds against the shader, and the
//! text of the WGSL struct where the shader is generated.

use bytemuck::Pod;

/// Type of a field of a parameter block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    /// A count, an offset, or a flag as 0 or 1.
    U32,
    /// A number.
    F32,
    /// So many of one type.
    Array(&'static FieldType, usize),
    /// Fields of their own.
    Struct(&'static [Field]),
}

/// One field of a parameter block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Name, in Rust and in WGSL.
    pub name: &'static str,
    /// Its type.
    pub ty: FieldType,
    /// Bytes from the start of its struct.
    pub offset: usize,
    /// Its doc comment, one line with the blank before it, or nothing.
    pub doc: &'static str,
}

/// What a field of a parameter block may be.
pub trait FieldValue: Pod {
    /// Its type in WGSL.
    const TYPE: FieldType;
}

impl FieldValue for u32 {
    const TYPE: FieldType = FieldType::U32;
}

impl FieldValue for f32 {
    const TYPE: FieldType = FieldType::F32;
}

impl<T: FieldValue, const N: usize> FieldValue for [T; N]
where
    [T; N]: Pod,
{
    const TYPE: FieldType = FieldType::Array(&T::TYPE, N);
}

impl<P: Parameters> FieldValue for P {
    const TYPE: FieldType = FieldType::Struct(P::FIELDS);
}

/// A struct of 32-bit words that a kernel reads; implemented by [`parameter_block`].
pub trait Parameters: Pod {
    /// Name of the WGSL struct.
    const NAME: &'static str;
    /// Its fields, in order.
    const FIELDS: &'static [Field];
}

/// The parameter block of one dispatch: the words of a [`Parameters`], and what they are called.
#[derive(Debug, Clone, Default)]
pub struct ParameterBlock {
    name: &'static str,
    fields: &'static [Field],
    words: Vec<u32>,
}

impl<P: Parameters> From<P> for ParameterBlock {
    fn from(parameters: P) -> Self {
        Self::of_words(P::NAME, P::FIELDS, bytemuck::cast_slice(&[parameters]))
    }
}

impl ParameterBlock {
    /// A block of these words; tests build wrong ones with it.
    #[doc(hidden)]
    pub fn of_words(name: &'static str, fields: &'static [Field], words: &[u32]) -> Self {
        Self { name, fields, words: words.to_vec() }
    }

    /// The block of a kernel that declares only the first `count` fields.
    #[must_use]
    pub fn first_fields(mut self, count: usize) -> Self {
        if let Some(left_out) = self.fields.get(count) {
            self.words.truncate(left_out.offset / 4);
            self.fields = &self.fields[..count];
        }
        self
    }

    /// Name of the WGSL struct.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its fields, in order.
    pub fn fields(&self) -> &'static [Field] {
        self.fields
    }

    /// The words, padded to the 16 bytes a uniform block is rounded up to.
    pub fn words(&self) -> Vec<u32> {
        let mut words = self.words.clone();
        words.resize(words.len().next_multiple_of(4).max(4), 0);
        words
    }
}

/// A count, size or offset as a word of a parameter block. Plans refuse tensors of 2^31 bytes or more, so every value that
/// indexes one fits; a larger one becomes the largest, and is no flag or offset by accident.
pub fn word(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// The fields of a WGSL struct of words, one a line, each with its comment.
pub(crate) fn declare(fields: &[Field]) -> String {
    let line = |field: &Field| {
        let comment = if field.doc.is_empty() { String::new() } else { format!(" //{}", field.doc) };
        let ty = if field.ty == FieldType::F32 { "f32" } else { "u32" };
        format!("{}: {ty},{comment}", field.name)
    };
    fields.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Defines a parameter block as one writes a struct: its fields in the order of the WGSL struct of the same name, each with
/// a doc comment of one line or none. Needs `bytemuck` with its derives.
#[macro_export]
macro_rules! parameter_block {
    (
        $(#[$attribute:meta])*
        $vis:vis struct $name:ident {
            $($(#[doc = $doc:literal])? $field:ident: $ty:ty),* $(,)?
        }
    ) => {
        $(#[$attribute])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
        $vis struct $name {
            $($(#[doc = $doc])? $vis $field: $ty,)*
        }

        impl $crate::kernel::Parameters for $name {
            const NAME: &'static str = stringify!($name);
            const FIELDS: &'static [$crate::kernel::Field] = &[$($crate::kernel::Field {
                name: stringify!($field),
                ty: <$ty as $crate::kernel::FieldValue>::TYPE,
                offset: std::mem::offset_of!($name, $field),
                doc: concat!($($doc)?),
            }),*];
        }
    };
}
pub(crate) use parameter_block;

#[cfg(test)]
mod tests {
    use super::*;

    parameter_block! {
        struct Part {
            first: u32,
            count: u32,
        }
    }

    parameter_block! {
        struct Block {
            /// of the stream
            rows: u32,
            eps: f32,
            parts: [Part; 2],
            flag: u32,
        }
    }

    #[test]
    fn a_block_is_its_fields_in_order() {
        let parts = [Part { first: 3, count: 4 }, Part { first: 5, count: word(usize::MAX) }];
        let block = ParameterBlock::from(Block { rows: 7, eps: 0.5, parts, flag: u32::from(true) });
        assert_eq!(block.words(), [7, 0.5_f32.to_bits(), 3, 4, 5, u32::MAX, 1, 0]);
        assert_eq!((block.name(), block.fields().len()), ("Block", 4));
        let offsets: Vec<_> = block.fields().iter().map(|field| (field.name, field.offset)).collect();
        assert_eq!(offsets, [("rows", 0), ("eps", 4), ("parts", 8), ("flag", 24)]);
        assert_eq!(Block::FIELDS[2].ty, FieldType::Array(&FieldType::Struct(Part::FIELDS), 2));
        assert_eq!(declare(&Block::FIELDS[..2]), "rows: u32, // of the stream\neps: f32,");
    }

    #[test]
    fn a_kernel_may_declare_the_first_fields_only() {
        let block = || ParameterBlock::from(Part { first: 3, count: 4 });
        assert_eq!(block().first_fields(1).words(), [3, 0, 0, 0]);
        assert_eq!(block().first_fields(1).fields(), &Part::FIELDS[..1]);
        assert_eq!(block().first_fields(2).words(), [3, 4, 0, 0]);
        assert_eq!(ParameterBlock::default().words(), [0; 4]);
    }
}
