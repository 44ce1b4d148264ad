//! What is said of data that are not what their name, the settings or the run say.

use std::fs;

use super::{RESUME, bytes, exchanged, half_done, numbers};
use crate::program::{Folder, TEXT, say};

#[test]
fn numbers_that_are_no_tokens_are_named() {
    let folder = Folder::new();
    let tokens = numbers(3000, 50_257);
    let few: Vec<u64> = tokens.iter().enumerate().map(|(at, &t)| if at % 50 == 7 { 100_000 + t } else { t }).collect();
    let below: Vec<u64> = numbers(3000, 90).iter().map(|token| u64::MAX - token).collect();
    let swapped = numbers(3000, 5000).iter().flat_map(|&token| (token as u16).to_be_bytes()).collect();
    let floats = tokens.iter().flat_map(|&token| (token as f32 / 25_000.0 - 1.0).to_le_bytes()).collect();
    for (name, contents, named) in [
        ("few.bin", bytes(&few, 4), "32-bit tokens"),
        ("below.bin", bytes(&below, 4), "32-bit tokens"),
        ("below64.bin", bytes(&below, 8), "64-bit tokens"),
        ("swapped.bin", swapped, "big-endian"),
        ("floats.bin", floats, "32-bit floating"),
        ("tar.bin", [&[b'a'; 257][..], b"ustar\0", &bytes(&tokens, 2)].concat(), "tar archive"),
        ("elf.bin", [&b"\x7fELF\x02\x01\x01\0"[..], &bytes(&tokens, 2)].concat(), "ELF"),
    ] {
        folder.write(name, contents);
        let said = folder.train(&format!("--data {name} --set model.vocab_size=65536 --steps 1 --out r")).refused();
        assert!(said.starts_with(&format!("{name} looks like ")) && said.contains(named), "{said}");
        say("headerless-shard-of-another-width", &said);
    }
    folder.write("zeros.bin", vec![0; 4000]);
    let said = folder.train("--data zeros.bin --set model.vocab_size=58 --steps 1 --out r").refused();
    assert!(said.contains("every token is 0") && said.contains("two different ones"), "{said}");
}

#[test]
fn a_vocabulary_comes_from_the_shard_and_one_too_large_is_warned_of() {
    let folder = Folder::new();
    folder.write("s.bin", bytes(&numbers(3000, 59), 2));
    let said = folder.train("--data s.bin --steps 1 --out r").refused();
    assert!(said.contains("its largest id is 58: name what made them, as with --tokenizer gpt2, or"), "{said}");
    let run = |vocab: usize| {
        folder.train(&format!("--data s.bin --set model.vocab_size={vocab} --steps 1 --overwrite --out r")).ok().stderr
    };
    assert!(run(1000).contains("model.vocab_size is 1000, but the largest id in the data in s.bin is 58"));
    assert!(!run(64).contains("model.vocab_size is"));
    let said = folder.train("--set model.vocab_size=500 --steps 1 --overwrite --out r").ok().stderr;
    assert!(said.contains("model.vocab_size is 500, but the tokenizer of the data in in.txt has "), "{said}");
    let plan = folder.run("plan --config run.toml --data s.bin --set model.vocab_size=59 --target webgpu").ok().stderr;
    assert!(plan.contains("s.bin: u16 without a header, 3000 tokens, largest id 58\n"), "{plan}");
}

#[test]
fn what_is_measured_on_other_data_says_so() {
    let folder = Folder::new();
    folder.train("--out r").ok();
    let commands = ["eval r", "prune r --keep 0.5", "grow r g.safetensors --ffn-slots 20"];
    for command in commands {
        let said = folder.run(command).ok().stderr;
        assert!(!said.contains("other text"), "{said}");
    }
    fs::remove_file(folder.path("g.safetensors")).unwrap();
    folder.write("in.txt", exchanged());
    for command in commands {
        let said = folder.run(command).ok().stderr;
        assert!(said.contains("is not what the run knew as its validation split"), "{said}");
        say("data-changed-unnoticed", &said);
    }
}

#[test]
fn data_that_moved_are_looked_for_where_the_sentence_says() {
    let folder = Folder::new();
    half_done(&folder);
    fs::rename(folder.path("in.txt"), folder.path("moved.txt")).unwrap();
    let said = folder.run("eval r").refused();
    assert!(said.contains("--data FILE --split val") && said.contains("a relative path, looked up in /"), "{said}");
    let said = folder.run("eval r --split train").refused();
    assert!(said.contains("--data FILE --split train"), "{said}");
    let said = folder.run(RESUME).refused();
    assert!(said.contains("in.txt") && said.contains("a relative path, looked up in /"), "{said}");
    let whole = folder.path("nosuch.txt");
    let said = folder.run(&format!("{RESUME} --data {}", whole.display())).refused();
    assert!(!said.contains("relative"), "{said}");
}

#[test]
fn a_text_of_other_characters_is_not_the_text_of_the_run() {
    let folder = Folder::new();
    half_done(&folder);
    for other in [TEXT.to_uppercase(), TEXT.replace('\n', "\r\n")] {
        folder.write("in.txt", other);
        let said = folder.run(RESUME).refused();
        assert!(
            said.contains("the model was trained on, so this is another text") && said.contains("--data"),
            "{said}"
        );
    }
    folder.write("in.txt", TEXT);
    let said = folder.run(&format!("{RESUME} --set data.val_fraction=0.2")).refused();
    assert!(said.contains("--set data.val_fraction=0.1") && !said.contains("--data FILE"), "{said}");
}

#[test]
fn marks_in_the_middle_and_one_symbol_are_warned_of() {
    let folder = Folder::new();
    folder.write("two.txt", format!("\u{feff}{TEXT}\u{feff}{TEXT}"));
    let said = folder.train("--data two.txt --steps 1 --out r").ok().stderr;
    assert!(said.contains("two.txt has 1 more byte order marks") && said.contains("at character 20000"), "{said}");
    folder.write("a.txt", "a".repeat(5000));
    let said = folder.train("--data a.txt --set data.tokenizer=byte --steps 1 --overwrite --out r").ok().stderr;
    assert!(said.contains("the character 'a' over and over"), "{said}");
}
