//! That all ranks do the same: the same program, settings and data. Ranks that differ would train something that nobody asked
//! for, without a sign of it.

use super::World;
use super::wire::{Garbled, Reader, put_text, put_u32};
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// Every rank names the same things. Where one has another text than rank 0, all ranks get the same error: which things, on
/// which ranks, and both texts where they first differ.
pub(crate) fn agree(world: &World, what: &[(&str, String)]) -> Result<()> {
    if world.size() == 1 {
        return Ok(());
    }
    let lists = world.all_gather(encode(what))?;
    let lists: Result<Vec<_>> = lists.iter().enumerate().map(|(rank, bytes)| decode(world, rank, bytes)).collect();
    match differences(&lists?) {
        found if found.is_empty() => Ok(()),
        found => {
            // All say this. Who ends before another has found it would be what that one says.
            let _ = world.barrier();
            Err(Error::usage(format!("{}; start all ranks with the same", found.join("; "))))
        }
    }
}

type Things = BTreeMap<String, String>;

fn encode(what: &[(&str, String)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_u32(&mut bytes, u32::try_from(what.len()).unwrap_or(u32::MAX));
    for (name, text) in what {
        put_text(&mut bytes, name);
        put_text(&mut bytes, text);
    }
    bytes
}

fn decode(world: &World, rank: usize, bytes: &[u8]) -> Result<Things> {
    let mut reader = Reader(bytes);
    let things = (|| {
        let count = reader.u32()?;
        let mut things = Things::new();
        for _ in 0..count {
            things.insert(reader.text()?.to_owned(), reader.text()?.to_owned());
        }
        reader.end().map(|()| things)
    })();
    things.map_err(|Garbled| {
        let host = world.host(rank);
        Error::usage(format!("{host} says of itself what is not understood here: start the same program on all ranks"))
    })
}

/// One clause for each thing that differs.
fn differences(ranks: &[Things]) -> Vec<String> {
    let Some((first, others)) = ranks.split_first() else { return Vec::new() };
    let mut names: Vec<&String> = ranks.iter().flat_map(Things::keys).collect();
    names.sort();
    names.dedup();
    let clause = |name: &String| {
        let differ: Vec<(usize, &Things)> =
            (1..).zip(others).filter(|(_, things)| things.get(name) != first.get(name)).collect();
        let (rank, one) = differ.first()?;
        let all: Vec<String> = differ.iter().map(|(rank, _)| rank.to_string()).collect();
        let (here, there) = shorten(first.get(name), one.get(name));
        let others = if all.len() == 1 { String::new() } else { format!("ranks {} differ, ", listed(&all)) };
        Some(format!("{name}: {others}rank {rank} has {there}, rank 0 has {here}"))
    };
    names.into_iter().filter_map(clause).collect()
}

/// `1, 2 and 3`; of many only the first.
fn listed(all: &[String]) -> String {
    const MOST: usize = 8;
    match all {
        [head @ .., last] if !head.is_empty() && all.len() <= MOST => format!("{} and {last}", head.join(", ")),
        _ if all.len() > MOST => {
            let first: Vec<&str> = all.iter().take(MOST).map(String::as_str).collect();
            format!("{} and {} others", first.join(", "), all.len() - MOST)
        }
        _ => all.concat(),
    }
}

/// Two texts around where they first differ.
fn shorten(a: Option<&String>, b: Option<&String>) -> (String, String) {
    const BEFORE: usize = 24;
    const AFTER: usize = 40;
    let same = match (a, b) {
        (Some(a), Some(b)) => a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count(),
        _ => 0,
    };
    let short = |text: Option<&String>| {
        let Some(text) = text else { return "nothing".to_owned() };
        let start = if same > BEFORE + 8 { same - BEFORE } else { 0 };
        let mut rest = text.chars().skip(start);
        let shown: String = rest.by_ref().take(same - start + AFTER).collect();
        let dots = |cut: bool| if cut { "..." } else { "" };
        format!("`{}{shown}{}`", dots(start > 0), dots(rest.next().is_some()))
    };
    (short(a), short(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_shown_where_they_differ() {
        let show = |a: &str, b: &str| shorten(Some(&a.to_owned()), Some(&b.to_owned()));
        assert_eq!(show("0.1", "0.2"), ("`0.1`".to_owned(), "`0.2`".to_owned()));
        let (a, b) = show(&format!("{}lr 1{}", "a".repeat(500), "z".repeat(500)), &format!("{}lr 2", "a".repeat(500)));
        assert_eq!(a, format!("`...{}lr 1{}...`", "a".repeat(21), "z".repeat(39)));
        assert_eq!(b, format!("`...{}lr 2`", "a".repeat(21)));
        assert_eq!(shorten(None, Some(&String::new())), ("nothing".to_owned(), "``".to_owned()));
    }

    #[test]
    fn every_thing_that_differs_is_named_with_its_ranks() {
        let things = |lr: &str, data: &str| -> Things {
            [("lr", lr), ("data", data)].map(|(name, text)| (name.to_owned(), text.to_owned())).into()
        };
        let ranks = [things("1", "a"), things("2", "a"), things("1", "b"), things("2", "a")];
        assert_eq!(
            differences(&ranks),
            ["data: rank 2 has `b`, rank 0 has `a`", "lr: ranks 1 and 3 differ, rank 1 has `2`, rank 0 has `1`",]
        );
        let many: Vec<String> = (1..20).map(|rank: usize| rank.to_string()).collect();
        assert_eq!(listed(&many), "1, 2, 3, 4, 5, 6, 7, 8 and 11 others");
    }
}
