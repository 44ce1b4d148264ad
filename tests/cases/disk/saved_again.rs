//! What is left pending is said: growths that a file cannot do any more, moments that it lacks, checksums that another
//! program has lost.

use super::{step, with_run};
use crate::program::{Folder, say};
use crate::snapshot::refused;
use safetensors::SafeTensors;
use std::collections::HashMap;
use std::fs;
use tokenformer::train::Checkpoint;

#[test]
fn a_growth_that_a_grown_file_cannot_do_is_named_and_left_out_on_request() {
    let folder = Folder::new();
    let growths = "--set growth=[{at_step=15,ffn_slot_num=24},{at_step=18,qkv_slot_num=12}]";
    folder.train(&format!("--out g {growths}")).ok();
    let from = "g/checkpoints/step-00000010.safetensors";
    fs::remove_file(step(&folder, "g", 20)).unwrap();
    let ran = folder.run(&format!("grow {from} wide.safetensors --ffn-slots 32")).ok();
    let named = "warning: the run's growth at step 15 is still in wide.safetensors: growth to 24 ffn slots from 32";
    assert!(ran.stderr.contains(named) && ran.stderr.contains("--drop-growths"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("at step 18"), "{}", ran.stderr);
    let said = refused(&folder, "train --resume wide.safetensors --out w --tune off");
    assert!(said.contains("growth to 24 ffn slots from 32"), "{said}");
    let ran = folder.run(&format!("grow {from} left.safetensors --ffn-slots 32 --drop-growths")).ok();
    assert!(ran.stderr.contains("growth at step 15 is left out of left.safetensors"), "{}", ran.stderr);
    let ran = folder.run("train --resume left.safetensors --out w --tune off").ok();
    assert!(ran.stdout.contains("slots qkv 8 -> 12"), "{}", ran.stdout);
}

#[test]
fn a_file_without_moments_is_resumed_with_a_word() {
    let folder = with_run();
    let mut checkpoint = Checkpoint::read(&step(&folder, "r", 10)).unwrap();
    (checkpoint.moment1, checkpoint.moment2) = Default::default();
    checkpoint.write(&folder.path("weights.safetensors")).unwrap();
    let ran = folder.run("train --resume weights.safetensors --out w --tune off").ok();
    say("missing moments", ran.stderr.lines().find(|line| line.contains("moments")).unwrap_or_default());
    assert!(ran.stderr.contains("warning: weights.safetensors has no optimizer moments"), "{}", ran.stderr);
    let ran = folder.run("train --resume w --steps 21 --tune off").ok();
    assert!(!ran.stderr.contains("no optimizer moments"), "{}", ran.stderr);
}

#[test]
fn a_copy_in_a_run_that_another_program_changed_is_not_passed_over() {
    let folder = with_run();
    // Without its moments; then without the metadata of the checksums.
    for (keep, metadata) in
        [((|name: &str| !name.starts_with("optimizer.")) as fn(&str) -> bool, ""), (|_| true, "tokenformer")]
    {
        let folder = with_run();
        // Whose metadata are in another order: which order it is, is left to chance.
        while {
            save_again(&folder, keep, Some(metadata));
            folder.read("again.safetensors")[8..].starts_with(br#"{"__metadata__":{"crc32":"#)
        } {}
        fs::rename(folder.path("again.safetensors"), step(&folder, "r", 20)).unwrap();
        let said = refused(&folder, "train --resume r --steps 21 --tune off");
        say("changed in a run", &said);
        let start = "the header of r/checkpoints/step-00000020.safetensors has not the checksum that it was written with: \
                     another program changed the file; what another program changed on purpose is taken with \
                     --accept-unverified; an older checkpoint is not taken";
        assert!(said.starts_with(start), "{said}");
        let ran = folder.run("train --resume r --steps 21 --tune off --accept-unverified").ok();
        assert!(ran.stderr.contains("after step 20"), "{}", ran.stderr);
    }
    // Damage is passed over.
    let mut bytes = folder.read("r/checkpoints/step-00000020.safetensors");
    bytes[60] ^= 1;
    fs::write(step(&folder, "r", 20), bytes).unwrap();
    assert!(
        folder.run("inspect r").ok().stderr.contains("warning: r/checkpoints/step-00000020.safetensors is damaged")
    );
}

#[test]
fn the_option_is_named_only_where_it_helps() {
    let folder = with_run();
    let whole = fs::read(step(&folder, "r", 20)).unwrap();
    let tip = "--accept-unverified";
    for damaged in [&whole[..whole.len() - 4], b"", b"no checkpoint", &[&whole[..], b"more"].concat()] {
        folder.write("again.safetensors", damaged);
        let said = refused(&folder, "eval again.safetensors");
        assert!(!said.contains(tip), "{said}");
        refused(&folder, "eval again.safetensors --accept-unverified");
    }
    save_again(&folder, |name| name != "norm.weight" && !name.starts_with("optimizer."), Some(""));
    let said = refused(&folder, "eval again.safetensors");
    assert!(!said.contains(tip), "{said}");
    let mut values = whole;
    *values.last_mut().unwrap() ^= 1;
    folder.write("again.safetensors", values);
    assert!(refused(&folder, "eval again.safetensors").ends_with(tip));
    folder.run("eval again.safetensors --accept-unverified").ok();
}

/// Saves a checkpoint again as Python's `save_file(tensors, file, metadata)` does, with the tensors that `keep` names.
fn save_again(folder: &Folder, keep: fn(&str) -> bool, metadata: Option<&str>) {
    let bytes = fs::read(step(folder, "r", 20)).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let kept: Option<HashMap<String, String>> = metadata.map(|only| {
        let all = header.metadata().clone().unwrap();
        all.into_iter().filter(|(key, _)| key.contains(only)).collect()
    });
    let views = tensors.iter().filter(|(name, _)| keep(name)).collect::<Vec<_>>();
    fs::write(folder.path("again.safetensors"), safetensors::serialize(views, kept).unwrap()).unwrap();
}

#[test]
fn a_copy_by_another_program_is_taken_where_nothing_is_lost() {
    let folder = with_run();
    save_again(&folder, |_| true, Some(""));
    assert_ne!(folder.read("again.safetensors"), fs::read(step(&folder, "r", 20)).unwrap(), "another file");
    let ran = folder.run("train --resume again.safetensors --steps 21 --out a --tune off").ok();
    let said =
        "again.safetensors: another program has saved it again; all of it is as it was written, by its checksums";
    say("saved again", said);
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
    folder.run("train --resume r --steps 21 --tune off").ok();
    assert!(super::same_tensors(&step(&folder, "a", 21), &step(&folder, "r", 21)));
    assert!(folder.run("inspect again.safetensors").ok().stdout.contains("saved the file again"));
}

#[test]
fn a_copy_that_lost_something_is_taken_on_request_or_told_the_way_back() {
    let folder = with_run();
    // Its moments.
    save_again(&folder, |name| !name.starts_with("optimizer."), Some(""));
    let args = "train --resume again.safetensors --steps 21 --out a --tune off";
    let said = refused(&folder, args);
    say("saved again with a loss", &said);
    assert!(said.contains("checksum") && said.ends_with("is taken with --accept-unverified"), "{said}");
    refused(&folder, "eval again.safetensors");
    let ran = folder.run(&format!("{args} --accept-unverified")).ok();
    assert!(ran.stderr.contains("taken as it is, without a look at its checksums"), "{}", ran.stderr);
    assert!(ran.stderr.contains("has no optimizer moments"), "{}", ran.stderr);
    folder.run("eval again.safetensors --accept-unverified").ok();
    // All metadata but the program's own.
    save_again(&folder, |_| true, Some("tokenformer"));
    assert!(refused(&folder, "eval again.safetensors").contains("--accept-unverified"));
    folder.run("eval again.safetensors --accept-unverified").ok();
    // All metadata: what the model is, nobody knows.
    save_again(&folder, |_| true, None);
    for how in ["", " --accept-unverified"] {
        let said = refused(&folder, &format!("eval again.safetensors{how}"));
        assert!(
            said.contains("not a tokenformer checkpoint") && said.contains("metadata=safe_open(original"),
            "{said}"
        );
    }
}
