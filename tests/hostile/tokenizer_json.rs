//! A `tokenizer.json`, as a file and packed inside a checkpoint: damaged, contradictory, or made to take memory and time.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Value, json};
use tokenformer::data::{FileTokenizer, Tokenizer, TokenizerKind};

use crate::dice::Dice;
use crate::meter::peak_of;

/// Heap that a small file may take besides what its bytes make: the tables of a vocabulary, and of patterns.
const MAX_EXTRA: usize = 96 << 20;

/// A small one of byte-level BPE, with a second one's parts to mix in.
fn whole() -> Value {
    let text = "the cat sat on the mat, and the cat's hat sat on that. ".repeat(4);
    let trained = FileTokenizer::trained_on(270, [text].into_iter()).unwrap();
    serde_json::from_str(&Tokenizer::TokenizerJson(trained).to_file_text().unwrap()).unwrap()
}

/// Reads, encodes and decodes; the refusal, if any, is one short line.
fn judge(what: &str, text: &str) -> Option<String> {
    let used = || {
        let tokenizer = Tokenizer::from_file_text(text)?;
        let tokens = tokenizer.encode_with_special("The cat's <|endoftext|>\0é 😀")?;
        tokenizer.decode(&tokens);
        assert!(tokens.iter().all(|&token| (token as usize) < tokenizer.vocab_size()), "{what}: {tokens:?}");
        Ok::<_, tokenformer::error::Error>(())
    };
    let (result, peak) = peak_of(|| catch_unwind(AssertUnwindSafe(used)));
    let result = result.unwrap_or_else(|_| panic!("{what}: it panicked on {:.2000}", text));
    assert!(peak <= 64 * text.len() + MAX_EXTRA, "{what}: {} bytes took {peak} of heap", text.len());
    let said = result.err().map(|e| e.to_string());
    if let Some(said) = &said {
        assert!(said.len() < 1000 && !said.contains(char::is_control), "{what}: {said:?}");
    }
    said
}

#[test]
fn damaged_files_are_refused_or_read() {
    let (first, second) =
        (whole().to_string(), json!({"model": {"type": "Unigram", "vocab": [["a", -1.0]]}}).to_string());
    let (mut accepted, mut refused) = (0, 0);
    for number in 0..400 {
        let mut dice = Dice::new(1, number);
        let mut bytes = first.clone().into_bytes();
        for _ in 0..=dice.few(3) {
            dice.damage(&mut bytes, second.as_bytes());
        }
        match judge(&format!("case {number}"), &String::from_utf8_lossy(&bytes)) {
            None => accepted += 1,
            Some(_) => refused += 1,
        }
    }
    assert!(accepted > 5 && refused > 100, "{accepted} accepted, {refused} refused");
    for cut in [0, 1, 2, first.len() / 2, first.len() - 1] {
        assert!(judge("cut", &first[..cut]).is_some(), "{cut}");
    }
}

#[test]
fn files_made_to_do_harm_are_refused() {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut file = whole();
        change(&mut file);
        file.to_string()
    };
    let split = |regex: &str| {
        with(&|file| {
            file["pre_tokenizer"] =
                json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
        })
    };
    for (what, text) in [
        ("nesting", "[".repeat(1 << 20)),
        ("nested model", format!("{{\"model\":{}", "{\"model\":".repeat(1 << 16))),
        (
            "nested rules",
            with(&|_| ()).replacen("\"normalizer\":null", &format!("\"normalizer\":{}", "[".repeat(1 << 16)), 1),
        ),
        ("not JSON", "\u{0}\u{1}binary".to_owned()),
        ("a number", "1e999".to_owned()),
        ("huge id", with(&|file| file["model"]["vocab"]["zzz"] = json!(u32::MAX))),
        ("huge added id", with(&|file| file["added_tokens"][0]["id"] = json!(u32::MAX))),
        ("id beyond 32 bits", with(&|file| file["model"]["vocab"]["zzz"] = json!(1_u64 << 40))),
        ("empty", with(&|file| file["model"] = json!({"type": "BPE", "vocab": {}, "merges": []}))),
        (
            "merges that name no token",
            with(&|file| file["model"]["merges"] = json!([["zz", "zzzzzzzzzzzzzzzzzzzzzzzzz"]])),
        ),
        ("prefix", with(&|file| file["model"]["continuing_subword_prefix"] = json!("####################"))),
        ("words", with(&|file| file["model"] = json!({"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}))),
        ("a type as long as a book", with(&|file| file["model"]["type"] = json!("x".repeat(1 << 20)))),
        ("a name as long as a book", with(&|file| file["model"]["vocab"]["y".repeat(1 << 20)] = json!(5))),
        ("unknown token", json!({"model": {"type": "Unigram", "unk_id": 9, "vocab": [["a", -1.0]]}}).to_string()),
        ("no pattern", split("(")),
        ("repeats", split("((((a{1000}){1000}){1000}){1000})")),
        ("unknown rules", with(&|file| file["pre_tokenizer"] = json!({"type": "Nobody"}))),
        ("rules of millions of signs", with(&|file| file["normalizer"] = json!(vec![0; 2 << 20]))),
        (
            "characters",
            with(&|file| file["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "AAAAAAAAAAA="})),
        ),
    ] {
        assert!(judge(what, &text).is_some(), "{what} was taken");
    }
    // A pattern that backtracks without end may be taken, and ends.
    judge("backtracking", &split(r"(?=(a+)+$)(\s*)*\S|(.*)*x|\X"));
}

#[test]
fn packed_ones_are_held_to_what_they_say() {
    let tokenizer = Tokenizer::from_file_text(&whole().to_string()).unwrap();
    let stored = serde_json::to_value(&tokenizer).unwrap();
    let refusal = |key: &str, value: Value| {
        let mut bad = stored.clone();
        bad["tokenizer_json"][key] = value;
        let (parsed, peak) = peak_of(|| serde_json::from_value::<Tokenizer>(bad).map_err(|e| e.to_string()));
        assert!(peak < MAX_EXTRA, "{key}: {peak}");
        parsed.unwrap_err()
    };
    assert!(refusal("sha256", json!("00")).contains("has the SHA-256"));
    assert!(refusal("bytes", json!(1)).contains("is not the 1 bytes"));
    assert!(refusal("bytes", json!(u64::MAX)).contains("at most 67108864"));
    for gzip in [json!(""), json!("====="), json!("H4sI"), json!(3), json!("A".repeat(1 << 20))] {
        refusal("gzip", gzip);
    }
}

#[test]
fn a_file_of_any_size_is_refused_unread() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    File::create(&path).unwrap().set_len(1 << 30).unwrap();
    let kind = TokenizerKind::File(path.clone());
    let open = || Tokenizer::of(&kind, &[]).map(drop).map_err(|e| e.to_string());
    let (opened, peak) = peak_of(open);
    let said = opened.unwrap_err();
    assert!(said.contains("at most 67108864 bytes") && peak < 1 << 20, "{said}, {peak}");
    std::fs::write(&path, [0xff, 0xfe, 0]).unwrap();
    assert!(open().unwrap_err().contains("not UTF-8"));
}
