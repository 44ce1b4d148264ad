//! Byte-level BPE over any text: special tokens are set apart, the rest is cut into pieces, and each piece is encoded.

use rustc_hash::FxHashMap;
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use super::classes::Kinds;
use super::merge::{Merged, Merger, Part};
use super::split::Pattern;

/// Longest piece that is remembered, in bytes.
const REMEMBERED: usize = 64;
/// Pieces that are remembered at once.
const MEMORY: usize = 1 << 16;

/// What becomes of two tokens side by side.
#[derive(Debug)]
pub(super) enum Merges {
    /// The token of their bytes, and it is its own rank.
    Ranks,
    /// As a list has it.
    Listed(FxHashMap<(u32, u32), (u32, u32)>),
}

/// A byte-level BPE.
#[derive(Debug)]
pub(super) struct ByteBpe {
    /// Tells what is remembered of this one from that of others.
    number: u64,
    tokens: FxHashMap<Box<[u8]>, u32>,
    bytes: [u32; 256],
    merges: Merges,
    /// Whether a piece that is a token is that token, whatever the merges make of it.
    whole_pieces: bool,
    pattern: Pattern,
}

/// Pieces that were encoded already, of one tokenizer at a time.
#[derive(Debug, Default)]
struct Remembered {
    number: u64,
    pieces: FxHashMap<Box<[u8]>, (u32, u32)>,
    ids: Vec<u32>,
    merger: Merger,
}

thread_local! {
    static REMEMBERED_PIECES: RefCell<Remembered> = RefCell::default();
}

impl ByteBpe {
    /// `None` where a byte is no token.
    pub(super) fn new(
        tokens: FxHashMap<Box<[u8]>, u32>,
        merges: Merges,
        whole_pieces: bool,
        pattern: Pattern,
    ) -> Option<Self> {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let mut bytes = [0; 256];
        for (byte, id) in (0..=u8::MAX).zip(&mut bytes) {
            *id = *tokens.get([byte].as_slice())?;
        }
        Some(Self { number: NUMBERS.fetch_add(1, Ordering::Relaxed), tokens, bytes, merges, whole_pieces, pattern })
    }

    /// How a text is cut into pieces.
    pub(super) fn pattern(&self) -> Pattern {
        self.pattern
    }

    /// The token of these bytes.
    pub(super) fn token(&self, bytes: &[u8]) -> Option<u32> {
        self.tokens.get(bytes).copied()
    }

    /// Appends the tokens of `text`, of which none is special.
    pub(super) fn encode(&self, text: &str, out: &mut Vec<u32>) {
        let kinds = Kinds::get();
        REMEMBERED_PIECES.with_borrow_mut(|known| {
            if known.number != self.number {
                *known = Remembered { number: self.number, ..Remembered::default() };
            }
            let mut at = 0;
            while at < text.len() {
                let end = self.pattern.next(kinds, text, at).max(at + 1);
                self.piece(text.as_bytes().get(at..end).unwrap_or_default(), known, out);
                at = end;
            }
        });
    }

    fn piece(&self, piece: &[u8], known: &mut Remembered, out: &mut Vec<u32>) {
        if self.whole_pieces
            && let Some(&id) = self.tokens.get(piece)
        {
            return out.push(id);
        }
        if let Some(&(start, end)) = known.pieces.get(piece) {
            return out.extend(known.ids.get(start as usize..end as usize).unwrap_or_default());
        }
        let first = out.len();
        let ids = piece.iter().map(|&byte| self.bytes.get(usize::from(byte)).copied().unwrap_or(0));
        match &self.merges {
            Merges::Ranks => known.merger.merge(ids, |a, b| self.ranked(piece, a, b), out),
            Merges::Listed(list) => {
                let merged = |a: Part, b: Part| list.get(&(a.id, b.id)).map(|&(rank, id)| Merged { rank, id });
                known.merger.merge(ids, merged, out);
            }
        }
        if piece.len() <= REMEMBERED {
            if known.pieces.len() >= MEMORY {
                known.pieces.clear();
                known.ids.clear();
            }
            let start = known.ids.len() as u32;
            known.ids.extend(out.get(first..).unwrap_or_default());
            known.pieces.insert(piece.into(), (start, known.ids.len() as u32));
        }
    }

    fn ranked(&self, piece: &[u8], a: Part, b: Part) -> Option<Merged> {
        let &id = self.tokens.get(piece.get(a.start as usize..b.end as usize)?)?;
        Some(Merged { rank: id, id })
    }
}
