//! A name never decides: the step in a checkpoint counts, and a link resumes where it lies.

use super::{checkpoints, copy, step, with_run};
use crate::program::{done, say};
use crate::snapshot::{of, refused};
use std::fs;

#[test]
fn a_checkpoint_of_another_step_than_its_name_is_named_with_the_way_out() {
    let folder = with_run();
    let into = "r/checkpoints/step-00000030.safetensors";
    let said = refused(&folder, &format!("grow r {into} --ffn-slots 24"));
    assert!(
        said.contains("would lie among the checkpoints of the run") && said.contains("choose another output"),
        "{said}"
    );
    refused(&folder, &format!("prune r {into} --ffn-slots 8"));
    // Made elsewhere and moved there by hand, with the step of another name.
    folder.run("grow r grown.safetensors --ffn-slots 24").ok();
    fs::rename(folder.path("grown.safetensors"), step(&folder, "r", 30)).unwrap();
    for args in
        ["train --resume r --steps 40 --tune off", &format!("train --resume {into} --steps 40 --tune off"), "eval r"]
    {
        let said = refused(&folder, args);
        say("name-and-step-differ-dead-end", &said);
        assert!(said.starts_with(&format!("{into} holds step 20 and not the 30 of its name: ")), "{args}: {said}");
        assert!(said.contains(&format!("`mv {into} r-30.safetensors`")), "{args}: {said}");
    }
    // The way out is one.
    fs::rename(step(&folder, "r", 30), folder.path("r-30.safetensors")).unwrap();
    folder.run("train --resume r-30.safetensors --out grown --steps 21 --tune off").ok();
    folder.run("train --resume r --steps 21 --tune off").ok();
}

#[test]
fn a_later_step_under_an_earlier_name_is_neither_taken_for_it_nor_rotated_away() {
    let folder = with_run();
    fs::rename(step(&folder, "r", 20), step(&folder, "r", 5)).unwrap();
    let said = refused(&folder, "train --resume r --tune off");
    let file = "r/checkpoints/step-00000005.safetensors";
    let mv = format!("`mv {file} r/checkpoints/step-00000020.safetensors`");
    assert!(
        said.starts_with(&format!("{file} holds step 20 and not the 5 of its name")) && said.contains(&mv),
        "{said}"
    );
    // Put there while the run goes on.
    let folder = with_run();
    folder.run("train --resume r --steps 30 --tune off").ok();
    fs::rename(step(&folder, "r", 20), folder.path("kept.safetensors")).unwrap();
    let before = fs::read(folder.path("kept.safetensors")).unwrap();
    let mut child = folder
        .command("train --resume r --steps 400 --set train.keep_last=1 --set train.checkpoint_interval=5 --tune off");
    let mut child = child.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    while !step(&folder, "r", 35).exists() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    fs::rename(folder.path("kept.safetensors"), step(&folder, "r", 7)).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(fs::read(step(&folder, "r", 7)).unwrap(), before);
}

#[test]
fn a_copied_run_goes_on_by_itself() {
    let folder = with_run();
    copy(&folder.path("r"), &folder.path("copy"));
    let original = |snapshot: std::collections::BTreeMap<String, crate::snapshot::Entry>| {
        snapshot.into_iter().filter(|(name, _)| name.starts_with("r/")).collect::<Vec<_>>()
    };
    let before = original(of(&folder));
    folder.run("train --resume copy --steps 21 --tune off").ok();
    assert!(before == original(of(&folder)), "the original is as it was");
    assert!(step(&folder, "copy", 21).exists());
}

#[cfg(unix)]
#[test]
fn a_link_resumes_where_it_lies_and_nothing_is_written_through_one_into_a_run() {
    use std::os::unix::fs::symlink;
    let folder = with_run();
    let made = |at: u64, args: &str| {
        folder.run(&format!("train --resume {args} --steps {at} --tune off")).ok();
        assert!(step(&folder, "r", at).exists(), "{args}");
        assert!(!folder.path("runs").exists(), "{args}");
    };
    symlink("r", folder.path("link")).unwrap();
    made(21, "link");
    symlink("step-00000021.safetensors", folder.path("r/checkpoints/latest.safetensors")).unwrap();
    made(22, "r/checkpoints/latest.safetensors");
    // It lies in no run, and leads into one.
    symlink("r/checkpoints/step-00000022.safetensors", folder.path("newest.safetensors")).unwrap();
    made(23, "newest.safetensors");
    // A run that was moved, by a link to it.
    fs::rename(folder.path("r"), folder.path("moved")).unwrap();
    symlink("moved/checkpoints/step-00000023.safetensors", folder.path("moved.safetensors")).unwrap();
    folder.run("train --resume moved.safetensors --steps 24 --tune off").ok();
    assert!(step(&folder, "moved", 24).exists() && !folder.path("r").exists());

    symlink("moved/checkpoints", folder.path("out")).unwrap();
    for args in ["grow moved out/x.safetensors --ffn-slots 24", "prune moved out/x.safetensors --ffn-slots 8"] {
        assert!(refused(&folder, args).contains("would lie among the checkpoints of the run"), "{args}");
    }
    assert!(checkpoints(&folder, "moved").iter().all(|name| name != "x.safetensors"));
}

/// Every reader beside a run that saves after each step and keeps one works on the file that it opened.
#[test]
fn readers_beside_a_run_that_rotates_read_one_file() {
    let folder = with_run();
    let keep = "--set train.checkpoint_interval=1 --set train.keep_last=1 --set train.eval_interval=0";
    let mut child = folder.command(&format!("train --resume r --steps 100000 {keep} --tune off"));
    let mut child = child.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    while !step(&folder, "r", 25).exists() && checkpoints(&folder, "r").len() > 1 && child.try_wait().unwrap().is_none()
    {
        std::thread::yield_now();
    }
    for round in 0..6 {
        folder.run("inspect r").ok();
        folder.run(&format!("grow r grown-{round}.safetensors --ffn-slots 24")).ok();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // The digest is of what was read: of a file that stays, it is the file's.
    folder.run("grow r/checkpoints/best.safetensors grown.safetensors --ffn-slots 24").ok();
    let said = folder.run("inspect grown.safetensors").ok().stdout;
    let mut sum = std::process::Command::new("sha256sum");
    let sum = done(sum.arg(folder.path("r/checkpoints/best.safetensors"))).ok().stdout;
    assert!(said.contains(&format!("best.safetensors, sha256 {}", sum.split(' ').next().unwrap())), "{said}");
}
