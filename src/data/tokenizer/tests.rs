//! Files of every kind, and the crate as a reference for what is done by hand.

use super::foreign::Foreign;
use super::{CharTokenizer, FileTokenizer, MAX_CHARS, StreamDecoder, Tokenizer, TokenizerKind};
use serde_json::{Value, json};

fn parse(file: &Value) -> Result<FileTokenizer, String> {
    FileTokenizer::parse(file.to_string()).map_err(|e| e.to_string())
}

fn added(id: u32, name: &str, special: bool) -> Value {
    json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": special})
}

/// Trained on a text in which words come often.
fn trained(tokens: usize) -> Value {
    let text = "the cat sat on the mat, and the cat's hat sat on that. ".repeat(20);
    let trained = FileTokenizer::trained_on(tokens, [text].into_iter()).unwrap();
    serde_json::from_str(trained.text()).unwrap()
}

/// As Llama 2 has it: no word is cut out, a blank is a sign, and what is no token is written in bytes.
fn sentencepiece() -> Value {
    let names = ["<unk>", "<s>", "</s>"].map(str::to_owned).into_iter();
    let names = names.chain((0..=255_u8).map(|byte| format!("<{byte:#04X}>")));
    let names = names.chain(["▁", "t", "h", "e", "▁t", "he", "▁the"].map(str::to_owned));
    let vocab: serde_json::Map<String, Value> = names.zip(0..).map(|(name, id): (_, u32)| (name, id.into())).collect();
    json!({
        "version": "1.0",
        "added_tokens": [added(0, "<unk>", true), added(1, "<s>", true), added(2, "</s>", true), added(266, "▁▁", false)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true, "vocab": vocab,
            "merges": ["▁ t", "h e", "▁t he"]},
    })
}

#[test]
fn by_hand_tokens_are_those_of_the_crate() {
    let texts = [
        "the cat's\r\n\n hat  <|endoftext|>\tthat",
        "THE cat\u{17f}'\u{17f} 12345 ½²٣ <think>e\u{301}é\u{323}",
        "HTTPServer 中文A ǅ \u{a0}\u{2003}x//\r\n",
        "😀😀\u{200d}\u{fe0f}!!! \0\u{7f}\u{85}\u{2028}",
    ];
    let split = |regex: &str| {
        json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false}]})
    };
    let gpt4 = |digits: &str| {
        split(&format!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ))
    };
    let gpt2 = trained(270);
    for rules in [gpt2["pre_tokenizer"].clone(), gpt4(r"\p{N}{1,3}"), gpt4(r"\p{N}"), split(super::split::O200K)] {
        let mut file = gpt2.clone();
        file["pre_tokenizer"] = rules;
        file["normalizer"] = json!({"type": "NFC"});
        // What others put around a text, or cut off it, is no part of it.
        file["truncation"] = json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
        file["padding"] = json!({"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "x"});
        file["added_tokens"].as_array_mut().unwrap().push(added(270, "<think>", false));
        let by_hand = parse(&file).unwrap();
        assert!(by_hand.has_known_words());
        let crate_rules = Foreign::read(by_hand.text()).unwrap();
        for text in texts {
            for special in [false, true] {
                let tokens = by_hand.encode(text, special).unwrap();
                assert_eq!(tokens, crate_rules.encode(text, by_hand.text(), special).unwrap(), "{text:?} {special}");
                assert_eq!(tokens.contains(&0), special && text.contains("<|endoftext|>"));
            }
        }
    }
}

#[test]
fn sentencepiece_gives_every_byte_back() {
    let file = parse(&sentencepiece()).unwrap();
    assert!(!file.has_known_words());
    let tokenizer = Tokenizer::TokenizerJson(file);
    assert_eq!((tokenizer.vocab_size(), tokenizer.end_of_text()), (267, Some(2)));
    let tokens = tokenizer.encode("the\nthe é").unwrap();
    assert_eq!(tokens, [265, 3 + 10, 260, 264, 259, 3 + 0xc3, 3 + 0xa9]);
    assert_eq!(tokenizer.decode(&tokens), " the\nthe é");
    assert_eq!(tokenizer.encode("</s>").unwrap().len(), 5, "the name of a special token is text");
    assert!(tokenizer.encode_with_special("the</s>").unwrap().ends_with(&[2]));
    assert_eq!((tokenizer.bytes_of(2), tokenizer.bytes_of(265)), (0, 4));
    assert_eq!(tokenizer.bytes(266).unwrap(), b"  ", "an added token that is not special is text");
}

#[test]
fn a_file_travels_byte_for_byte() {
    let text = trained(270).to_string();
    let tokenizer = Tokenizer::from_file_text(&text).unwrap();
    let stored = serde_json::to_value(&tokenizer).unwrap();
    assert!(stored.to_string().len() < text.len());
    let back: Tokenizer = serde_json::from_value(stored.clone()).unwrap();
    assert_eq!((&back, back.to_file_text().unwrap()), (&tokenizer, text));
    assert_eq!(serde_json::to_value(&back).unwrap(), stored);
    let Tokenizer::TokenizerJson(file) = &back else { panic!("another kind") };
    assert_eq!(back.sha256().unwrap(), file.sha256());
}

#[test]
fn a_short_text_gives_fewer_tokens_and_always_the_same() {
    let text = || "low lower lowest low low".to_owned();
    let first = FileTokenizer::trained_on(1000, [text()].into_iter()).unwrap();
    assert_eq!(first, FileTokenizer::trained_on(1000, [text()].into_iter()).unwrap());
    assert!((258..280).contains(&first.vocab_size()), "{}", first.vocab_size());
    let none = FileTokenizer::trained_on(257, std::iter::empty()).unwrap();
    assert_eq!((none.vocab_size(), none.end_of_text()), (257, Some(0)));
    assert_eq!(none.encode("aé", false).unwrap().len(), 3);
}

#[test]
fn what_does_not_give_text_back_is_refused() {
    let mut lowercase = trained(270);
    lowercase["normalizer"] = json!({"type": "Lowercase"});
    let said = parse(&lowercase).unwrap_err();
    assert!(
        said.contains("does not give text back") && said.contains("\"The quick, b\" comes back as \"the"),
        "{said}"
    );
    let words = json!({"model": {"type": "WordPiece", "vocab": {"a": 0}}});
    assert!(parse(&words).unwrap_err().contains("its model is \"WordPiece\""));
}

#[test]
fn a_file_that_contradicts_itself_is_refused() {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut file = trained(270);
        change(&mut file);
        parse(&file).unwrap_err()
    };
    let model = |key: &'static str, value: Value| with(&|file| file["model"][key] = value.clone());
    assert!(model("vocab", json!({})).contains("needs"), "merges without tokens");
    assert!(with(&|file| file["model"] = json!({"vocab": {}, "merges": []})).contains("vocabulary is empty"));
    assert!(model("merges", json!(["q qq"])).contains("merge 0 of \"q\" and \"qq\" needs \"qq\""));
    assert!(model("merges", json!(["a b c"])).contains("a merge: two tokens"));
    assert!(model("merges", json!([["a"]])).contains("a merge of two tokens"));
    assert!(model("vocab", json!({"a": -1})).contains("invalid value"));
    assert!(model("vocab", json!([1, 2])).contains("invalid type"));
    assert!(model("dropout", json!(0.1)).contains("its dropout is 0.1"));
    assert!(with(&|file| file["model"]["vocab"]["zzz"] = json!(u32::MAX)).contains("4294967295, but tokens go up to"));
    assert!(with(&|file| file["model"]["vocab"]["zzz"] = json!(5)).contains("has the token 5 twice"));
    assert!(
        with(&|file| file["added_tokens"] = json!([added(9, "<s>", true)])).contains("\"<s>\" is 9, but by its place")
    );
    assert!(parse(&json!({"model": {"type": "BPE"}})).unwrap_err().contains("missing field"));
    assert!(parse(&json!([])).unwrap_err().contains("no tokenizer.json"));
}

#[test]
fn characters_are_sorted_distinct_and_come_back() {
    let tokenizer = Tokenizer::of(&TokenizerKind::Char, &["bé\na", "ab"]).unwrap();
    assert_eq!(tokenizer.vocab_size(), 4);
    let tokens = tokenizer.encode("a\nbé").unwrap();
    assert_eq!(tokens, [1, 0, 2, 3]);
    assert_eq!(tokenizer.decode(&tokens), "a\nbé");
    assert_eq!(tokens.iter().map(|&t| tokenizer.bytes_of(t)).sum::<usize>(), "a\nbé".len());
    let error = tokenizer.encode("ab€").unwrap_err().to_string();
    assert!(error.contains("'€' (U+20AC) at position 2 is not among the 4"), "{error}");
}

#[test]
fn json_comes_back_and_hostile_json_is_refused() {
    for tokenizer in [Tokenizer::Byte, Tokenizer::of(&TokenizerKind::Char, &["\"\\\u{0}é"]).unwrap()] {
        let json = serde_json::to_string(&tokenizer).unwrap();
        assert_eq!(serde_json::from_str::<Tokenizer>(&json).unwrap(), tokenizer);
        assert_eq!(Tokenizer::from_file_text(&tokenizer.to_file_text().unwrap()).unwrap(), tokenizer);
    }
    assert_eq!(serde_json::to_string(&TokenizerKind::Char).unwrap(), "\"char\"");
    for bad in [r#"{"char":""}"#, r#"{"char":"aa"}"#, r#"{"char":"ba"}"#, r#"{"char":["a"]}"#, r#""word""#] {
        assert!(serde_json::from_str::<Tokenizer>(bad).is_err(), "{bad}");
    }
    let huge: String = ('\u{0}'..=char::MAX).take(MAX_CHARS + 1).collect();
    assert!(CharTokenizer::try_from(huge).is_err());
}

#[test]
fn a_stream_never_prints_half_a_character() {
    let mut stream = StreamDecoder::new(&Tokenizer::Byte);
    let shown: Vec<String> = "aé€".bytes().map(|byte| stream.push(u32::from(byte))).collect();
    assert_eq!(shown, ["a", "", "é", "", "", "€"]);
    // Every prefix of every byte string ends as Rust's own lossy decoder would have it.
    for bytes in [&b"\xe2\x82a"[..], b"\xff\xf0\x9f\x98", b"\xf0\x9f\xc3\xa9", b"\xed\xa0\x80z"] {
        let tokens: Vec<u32> = bytes.iter().map(|&byte| u32::from(byte)).collect();
        assert_eq!(Tokenizer::Byte.decode(&tokens), String::from_utf8_lossy(bytes));
    }
    assert_eq!(Tokenizer::Byte.decode(&[0xc3, 256, 97]), "\u{fffd}\u{fffd}a");
}
