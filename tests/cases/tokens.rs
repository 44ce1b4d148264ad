//! Tokenizers of sub-words: the tokens of other programs, and a tokenizer that stays with its model.

use crate::program::{Folder, say};
use serde_json::Value;
use tokenformer::data::{Tokenizer, TokenizerKind};

/// Tokens of `tiktoken` and `tokenizers` by `scripts/compare-tokenizers.py --fixture`, without and with special tokens.
const FIXTURE: &str = include_str!("tokens.json");

#[test]
fn tokens_are_those_of_tiktoken() {
    let fixture: Value = serde_json::from_str(FIXTURE).unwrap();
    let texts: Vec<&str> = fixture["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    for kind in [TokenizerKind::Gpt2, TokenizerKind::Cl100k, TokenizerKind::O200k] {
        let tokenizer = Tokenizer::of(&kind, &[]).unwrap();
        let expected = &fixture["ids"][kind.to_string()];
        for (at, text) in texts.iter().enumerate() {
            let [ordinary, special] = [tokenizer.encode(text), tokenizer.encode_with_special(text)].map(Result::unwrap);
            assert_eq!(
                serde_json::json!([ordinary, special]),
                serde_json::json!([expected[0][at], expected[1][at]]),
                "{text:?}"
            );
            assert_eq!(
                (tokenizer.decode(&ordinary), tokenizer.decode(&special)),
                ((*text).to_owned(), (*text).to_owned())
            );
        }
    }
    say("other-tokens", &format!("{} texts have the tokens of tiktoken", texts.len()));
}

/// Runs that others' patterns give up on, or read again for every character.
#[test]
fn long_runs_of_one_character_take_no_time() {
    for kind in [TokenizerKind::Gpt2, TokenizerKind::O200k] {
        let tokenizer = Tokenizer::of(&kind, &[]).unwrap();
        for unit in ["a", " ", "\n", "\u{301}", "aA", "'", " \n"] {
            let text = unit.repeat((1 << 16) / unit.len()) + "!";
            let began = std::time::Instant::now();
            let tokens = tokenizer.encode(&text).unwrap();
            assert!(began.elapsed().as_secs() < 30, "{unit:?} took {:?}", began.elapsed());
            assert_eq!(tokenizer.decode(&tokens), text);
        }
    }
}

#[test]
fn a_tokenizer_stays_with_its_model() {
    let folder = Folder::new();
    let said = folder.train("--tokenizer bpe:300 --steps 2 --out r").ok().stderr;
    assert!(!said.contains("warning"), "{said}");
    let inspected = folder.run("inspect r --json").ok();
    let inspected: Value = serde_json::from_str(inspected.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&inspected["tokenizer"]["tokens"], &inspected["config"]["model"]["vocab_size"]),
        (&300.into(), &300.into())
    );
    // Its file can be named where the run goes on, under any path, but no other.
    let Tokenizer::TokenizerJson(file) = Tokenizer::of(&TokenizerKind::Bpe(300), &[crate::program::TEXT]).unwrap()
    else {
        panic!("another kind")
    };
    assert_eq!(inspected["tokenizer"]["sha256"], file.sha256());
    folder.write("elsewhere.json", Tokenizer::TokenizerJson(file).to_file_text().unwrap());
    folder.run("train --resume r --steps 3 --tokenizer elsewhere.json").ok();
    folder.write("other.json", folder.text("elsewhere.json") + " ");
    for (other, parts) in [
        ("other.json", ["data.tokenizer is other.json", "SHA-256", "drop that setting"]),
        ("gpt2", ["data.tokenizer is gpt2", "ranks 306cd27f03c1", "a resumed run keeps the tokenizer"]),
    ] {
        let said = folder.run(&format!("train --resume r --steps 4 --tokenizer {other}")).refused();
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
        say("stale-tokenizer", &said);
    }
    // Without the text and the file it was trained with.
    std::fs::remove_file(folder.path("elsewhere.json")).unwrap();
    let drawn = folder.run("generate r --tokens 5").ok().stdout;
    assert!(!drawn.starts_with("<|endoftext|>"), "{drawn}");
    let measured = folder.run("eval r --data in.txt").ok().stdout;
    assert!(measured.contains("nats/token") && measured.contains("bits per byte"), "{measured}");
}

#[test]
fn special_tokens_are_text_unless_allowed_and_end_a_text_when_asked() {
    let folder = Folder::new();
    folder.train("--tokenizer bpe:257 --steps 1 --out r").ok();
    let prompted = |more: &str| {
        let said = folder.run(&format!("generate r --tokens 1 --json --prompt <|endoftext|> {more}")).ok().stdout;
        let said: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        said["prompt_tokens"].as_u64().unwrap()
    };
    assert_eq!((prompted(""), prompted("--allow-special")), (13, 1));
    let stopped = folder.run("generate r --tokens 3000 --temperature 9 --stop-at-eos --json").ok();
    let stopped: Value = serde_json::from_str(stopped.stdout.lines().last().unwrap()).unwrap();
    assert_eq!((&stopped["samples"][0]["stopped"], stopped["tokens"].as_u64() < Some(3000)), (&true.into(), true));
    folder.train("--tokenizer char --steps 1 --out c").ok();
    let said = folder.run("generate c --stop-at-eos").refused();
    assert!(said.contains("--stop-at-eos needs a token that ends a text") && said.contains("--stop"), "{said}");
}

/// A pipe would be waited for, and a program that ends tidily on a signal would not even end by one.
#[cfg(unix)]
#[test]
fn a_tokenizer_that_is_no_file_is_not_waited_for() {
    let folder = Folder::new();
    assert!(std::process::Command::new("mkfifo").arg(folder.path("t.json")).status().unwrap().success());
    for command in ["train in.txt --tokenizer t.json --dry-run", "prepare in.txt --out o --tokenizer t.json"] {
        assert_eq!(folder.run(command).refused(), "t.json is no regular file; name a tokenizer.json");
    }
    folder.run("prepare in.txt --out o --tokenizer bpe:300 --val-fraction 0.1").ok();
    std::fs::remove_file(folder.path("o/tokenizer.json")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(folder.path("o/tokenizer.json")).status().unwrap().success());
    for command in ["train --data o --dry-run", "inspect o"] {
        assert!(folder.run(command).refused().starts_with("o/tokenizer.json is no regular file"), "{command}");
    }
}

/// What tokens are is said by a directory, else by the setting; where both say it they agree.
#[test]
fn the_tokenizer_of_ready_tokens_is_what_both_say() {
    let folder = Folder::new();
    folder.run("prepare in.txt --tokenizer gpt2 --out gpt2").ok();
    folder.run("prepare in.txt --tokenizer bpe:300 --out bpe").ok();
    let shown = folder.run("train --config run.toml --data gpt2 --dry-run").ok().stdout;
    assert!(!shown.contains("tokenizer"), "what the data say is not guessed: {shown}");
    for (data, tokenizer, said) in [
        ("gpt2", "cl100k", "than data.tokenizer"),
        ("gpt2", "char", "data.tokenizer is char, but gpt2 holds tokens of gpt2: drop that setting"),
        ("bpe", "bpe:400", "data.tokenizer is bpe:400, but bpe holds tokens of bpe:300"),
        (
            "gpt2/train_000000.bin",
            "bpe:300",
            "bpe:300, which is trained on a text, but gpt2/train_000000.bin has tokens",
        ),
        ("gpt2/train_000000.bin", "byte", "but vocab_size is 256"),
    ] {
        let refused =
            folder.run(&format!("train --config run.toml --steps 2 --out r --data {data} --tokenizer {tokenizer}"));
        let refused = refused.refused();
        assert!(refused.contains(said), "{data} {tokenizer}: {refused}");
        assert!(!folder.path("r").exists());
    }
    folder.train("--steps 2 --out same --data gpt2").ok();
    let shards = "gpt2/train_000000.bin --set data.val_path=gpt2/val_000000.bin";
    for (data, tokenizer) in [("gpt2", "gpt2"), (shards, "gpt2"), (shards, "gpt2/tokenizer.json")] {
        folder.train(&format!("--steps 2 --overwrite --out r --data {data} --tokenizer {tokenizer}")).ok();
        let tensors = |run: &str| folder.run(&format!("generate {run} -p First -n 4 --seed 1")).ok().stdout;
        assert_eq!(tensors("r"), tensors("same"));
    }
    for tokenizer in ["bpe:300", "bpe/tokenizer.json"] {
        folder.train(&format!("--steps 2 --overwrite --out b --data bpe --tokenizer {tokenizer}")).ok();
    }
}
