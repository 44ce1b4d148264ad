//! Ranks that are threads, on a network that is slow and loses ranks.

use super::threads::{Hub, Threads};
use super::timing::{TIMING, Timing};
use super::wire::{Hello, PROTOCOL};
use super::{World, agree};
use crate::error::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SIZES: [usize; 4] = [2, 3, 4, 7];

/// Machines that test are busy: a thread may not run for a while.
const SHORT: Timing = Timing {
    beat: Duration::from_millis(50),
    patience: Duration::from_millis(1500),
    patience_in_stop: Duration::from_millis(500),
    leave: Duration::from_millis(800),
    give_way: Duration::from_millis(20),
};

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn hello(rank: usize) -> Hello {
    Hello::of_this(format!("node{rank}, process {}", 4711 + rank))
}

/// Runs `act` on all ranks, and gives what each returned. Those that return an error leave with it.
fn run<T: Send>(hub: &Arc<Hub>, size: usize, act: impl Fn(&World) -> Result<T> + Sync) -> Vec<(Result<T>, bool)> {
    let rank = |transport: Box<Threads>, rank: usize| {
        let world = match World::with(transport, hello(rank), SHORT) {
            Ok(world) => world,
            Err(error) => return (Err(error), false),
        };
        let got = act(&world);
        let why = got.as_ref().map_err(ToString::to_string);
        let in_order = world.leave(why.as_ref().map(|_| ()).map_err(|why| why.as_str()));
        (got, in_order)
    };
    std::thread::scope(|scope| {
        let start = |n| {
            scope.spawn({
                let (transport, rank) = (hub.transport(n), &rank);
                move || rank(transport, n)
            })
        };
        let threads: Vec<_> = (0..size).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Where nothing goes wrong.
fn all<T: Send>(size: usize, delay: Duration, act: impl Fn(&World) -> Result<T> + Sync) -> Vec<T> {
    let ended = run(&Hub::new(size, delay), size, act);
    let in_order = |(got, in_order): (Result<T>, bool)| {
        let got = got.unwrap();
        assert!(in_order);
        got
    };
    ended.into_iter().map(in_order).collect()
}

/// The sentences of all ranks; none may end in order.
fn faults<T: Send>(ended: Vec<(Result<T>, bool)>) -> Vec<String> {
    let fault = |(got, in_order): (Result<T>, bool)| {
        assert!(!in_order);
        got.err().map_or_else(|| "none".to_owned(), |error| error.to_string())
    };
    ended.into_iter().map(fault).collect()
}

/// Others wait for the rank that does something odd.
fn wait_for(world: &World, rank: usize) -> Result<()> {
    world.receive(rank, 99).map(drop)
}

#[test]
fn messages_of_one_tag_come_in_order_and_whole() {
    for size in SIZES {
        all(size, ms(3), |world| {
            for n in 0..60u32 {
                for to in 0..size {
                    let text = format!("{n} of {} to {to}", world.rank());
                    world.send(to, n % 3, text.repeat(n as usize * 10).into_bytes())?;
                }
            }
            world.send((world.rank() + 1) % size, 77, vec![world.rank() as u8; 20_000_000])?;
            for n in 0..60u32 {
                for from in (0..size).rev() {
                    let text = format!("{n} of {from} to {}", world.rank());
                    assert_eq!(world.receive(from, n % 3)?, text.repeat(n as usize * 10).into_bytes());
                }
            }
            let before = (world.rank() + size - 1) % size;
            assert_eq!(world.receive(before, 77)?, vec![before as u8; 20_000_000]);
            world.check()
        });
    }
}

#[test]
fn collectives_back_to_back_are_not_confused() {
    for size in SIZES {
        all(size, ms(2), |world| {
            for n in 0..30u8 {
                let own = vec![n ^ world.rank() as u8; world.rank() * usize::from(n)];
                let gathered = world.all_gather(own)?;
                let expected: Vec<_> = (0..size).map(|rank| vec![n ^ rank as u8; rank * usize::from(n)]).collect();
                assert_eq!(gathered, expected);
                assert_eq!(world.broadcast(world.is_root().then(|| vec![n; 3]))?, vec![n; 3]);
                world.barrier()?;
            }
            Ok(())
        });
    }
}

#[test]
fn nobody_passes_a_barrier_before_all_are_there() {
    for size in SIZES {
        let late = size - 1;
        let began = Instant::now();
        let passed = all(size, ms(1), |world| {
            if world.rank() == late {
                std::thread::sleep(ms(120));
            }
            world.barrier()?;
            Ok(began.elapsed())
        });
        assert!(passed.iter().all(|passed| *passed >= ms(120)), "{passed:?}");
    }
}

#[test]
fn a_rank_alone_needs_nobody() {
    let world = World::alone();
    assert_eq!((world.rank(), world.size(), world.local_rank(), world.is_root()), (0, 1, 0, true));
    assert_eq!(world.all_gather(vec![1, 2]), Ok(vec![vec![1, 2]]));
    assert_eq!(world.broadcast(Some(vec![3])), Ok(vec![3]));
    assert_eq!((world.barrier(), world.check()), (Ok(()), Ok(())));
    assert_eq!(agree(&world, &[("lr", "1".to_owned())]), Ok(()));
    assert!(matches!(world.send(0, 1, Vec::new()), Err(Error::Defect(_))));
    assert!(world.leave(Ok(())));
}

#[test]
fn who_fails_says_why_and_all_end_at_once_with_that_sentence() {
    for size in SIZES {
        let odd = size / 2;
        let began = Instant::now();
        let said = faults(run(&Hub::new(size, ms(3)), size, |world| {
            world.barrier()?;
            if world.rank() == odd {
                return Err(Error::device("out of memory"));
            }
            let fault = wait_for(world, odd).unwrap_err();
            assert_eq!((world.barrier(), world.send(odd, 1, vec![])), (Err(fault.clone()), Err(fault.clone())));
            Err::<(), _>(fault)
        }));
        assert!(began.elapsed() < SHORT.leave, "{:?}", began.elapsed());
        let sentence = format!("rank {odd} (node{odd}, process {}) ended: out of memory", 4711 + odd);
        for (rank, said) in said.iter().enumerate() {
            assert_eq!(said, if rank == odd { "out of memory" } else { &sentence });
        }
    }
}

#[test]
fn who_vanishes_is_noticed_by_all() {
    for size in SIZES {
        let odd = size - 1;
        let hub = Hub::new(size, ms(3));
        let said = faults(run(&hub, size, |world| {
            world.barrier()?;
            if world.rank() == odd {
                hub.vanish(odd);
                return wait_for(world, 0);
            }
            // Also those who wait for another one.
            let began = Instant::now();
            let fault = wait_for(world, if world.is_root() { odd } else { 0 }).unwrap_err();
            let took = began.elapsed();
            assert!(took > ms(1300) && took < ms(4000), "{took:?}");
            Err(fault)
        }));
        let process = 4711 + odd;
        let gone = "has not been heard of for 1.5 s: its process or its machine is gone";
        for said in said.iter().take(odd) {
            assert_eq!(said, &format!("rank {odd} (node{odd}, process {process}) {gone}"));
        }
        assert!(said[odd].ends_with(gone), "{}", said[odd]);
    }
}

#[test]
fn who_cannot_be_reached_is_lost() {
    let hub = Hub::new(4, ms(3));
    let began = Instant::now();
    let said = faults(run(&hub, 4, |world| {
        world.barrier()?;
        if world.rank() == 2 {
            hub.vanish(2);
            hub.refuse(2);
        }
        wait_for(world, world.rank())
    }));
    assert!(began.elapsed() < SHORT.patience * 3, "{:?}", began.elapsed());
    for rank in [0, 1, 3] {
        assert_eq!(said[rank], "rank 2 (node2, process 4713) is lost: a broken pipe");
    }
}

#[test]
fn who_is_to_stop_waits_for_less_long() {
    let hub = Hub::new(3, ms(3));
    let stop = Arc::new(AtomicBool::new(false));
    let said = faults(run(&hub, 3, |world| {
        let asked = stop.clone();
        world.set_stop(move || asked.load(Ordering::Relaxed));
        world.barrier()?;
        if world.rank() == 1 {
            hub.vanish(1);
            stop.store(true, Ordering::Relaxed);
        }
        wait_for(world, 1 - world.rank().min(1))
    }));
    assert_eq!(
        said[0],
        "rank 1 (node1, process 4712) has not been heard of for 0.5 s: its process or its machine is gone"
    );
}

#[test]
fn who_computes_for_long_is_waited_for() {
    let waited = all(3, ms(3), |world| {
        let began = Instant::now();
        if world.is_root() {
            std::thread::sleep(SHORT.patience * 2);
        }
        world.barrier()?;
        Ok(began.elapsed())
    });
    assert!(waited[1] > SHORT.patience, "{waited:?}");
}

#[test]
fn who_leaves_early_is_not_waited_for_in_vain() {
    for size in SIZES {
        let odd = size - 1;
        let ended = run(&Hub::new(size, ms(20)), size, |world| {
            if world.rank() == odd {
                // What was sent before is received, although it may come after the farewell.
                (0..odd).try_for_each(|to| world.send(to, 5, vec![5; 100]))?;
                return Ok(());
            }
            assert_eq!(world.receive(odd, 5)?, vec![5; 100]);
            wait_for(world, odd)
        });
        assert!(ended[odd].0.is_ok());
        for (rank, said) in faults(ended).into_iter().enumerate().take(odd) {
            // Whoever noticed first told the others.
            let before = |by: usize| {
                let name = |rank: usize| format!("rank {rank} (node{rank}, process {})", 4711 + rank);
                format!("{} ended before {}", name(odd), name(by))
            };
            assert!((0..odd).any(|by| said == before(by)), "{rank}: {said}");
        }
    }
}

#[test]
fn leaving_waits_for_whoever_still_works() {
    let left = all(4, ms(3), |world| {
        // Longer than the patience, and than one waits after a fault.
        if world.is_root() {
            std::thread::sleep(SHORT.patience + SHORT.leave);
        }
        Ok(Instant::now())
    });
    assert_eq!(left.len(), 4);
}

#[test]
fn after_a_fault_nobody_waits_for_ever() {
    let began = Instant::now();
    faults(run(&Hub::new(2, ms(1)), 2, |world| {
        world.barrier()?;
        // A fault overtakes what was sent before it: not while rank 0 still waits.
        std::thread::sleep(ms(300));
        if world.is_root() {
            std::thread::sleep(SHORT.leave * 2);
            return Ok(());
        }
        let failed = Instant::now();
        world.leave(Err("a defect"));
        let took = failed.elapsed();
        assert!(took >= SHORT.leave && took < SHORT.leave * 2, "{took:?}");
        Err(Error::usage("a defect"))
    }));
    assert!(began.elapsed() < SHORT.leave * 4);
}

#[test]
fn who_returns_without_a_word_is_noticed() {
    let hub = Hub::new(2, ms(1));
    let connect = |rank: usize| World::with(hub.transport(rank), hello(rank), SHORT);
    let said = std::thread::scope(|scope| {
        let other = scope.spawn(|| connect(1).map(drop));
        let said = connect(0).and_then(|world| wait_for(&world, 1));
        other.join().unwrap().unwrap();
        said.unwrap_err()
    });
    assert_eq!(said.to_string(), "rank 1 (node1, process 4712) ended: it says nothing more");
}

#[test]
fn ranks_of_another_version_are_named() {
    let hub = Hub::new(2, ms(1));
    let connect = |rank: usize, hello: Hello| {
        World::with(hub.transport(rank), hello, SHORT).and_then(|world| wait_for(&world, 0))
    };
    let said = std::thread::scope(|scope| {
        // It is told apart by its words only: it does not look at those of the others.
        let newer = Hello { protocol: PROTOCOL + 1, version: "9.9.9".to_owned(), ..hello(1) };
        let other = scope.spawn(|| connect(1, newer));
        [connect(0, hello(0)), other.join().unwrap()]
    });
    let this = env!("CARGO_PKG_VERSION");
    let sentence = format!(
        "rank 1 (node1, process 4712) is tokenformer 9.9.9 (protocol 2), but rank 0 (node0, process 4711) is tokenformer {this} (protocol 1): start the same program on all ranks"
    );
    assert_eq!(said, [Err(Error::Rank(sentence.clone())), Err(Error::Rank(sentence))]);
}

#[test]
fn what_is_not_understood_is_no_message() {
    for (tag, bytes) in [(super::inbox::HELLO, b"GET / HTTP/1.1".to_vec()), (super::inbox::BYE, vec![1])] {
        let hub = Hub::new(2, ms(0));
        let said = faults(run(&hub, 2, |world| {
            world.barrier()?;
            if world.is_root() {
                super::transport::Transport::send(hub.transport(0).as_ref(), 1, tag, bytes.clone())?;
            }
            wait_for(world, 1 - world.rank())
        }));
        assert!(said[1].starts_with("rank 0 (node0, process 4711) says what tokenformer "), "{said:?}");
    }
}

#[test]
fn different_operations_at_a_time_are_a_defect() {
    let said = faults(run(&Hub::new(2, ms(1)), 2, |world| {
        if world.is_root() { world.barrier() } else { world.all_gather(Vec::new()).map(drop) }
    }));
    assert!(said.iter().any(|said| said.starts_with("operation 0 is ") && said.contains("defect")), "{said:?}");
}

#[test]
fn ranks_agree_or_all_get_the_same_sentence() {
    for size in SIZES {
        let odd = size - 1;
        let said = all(size, ms(2), |world| {
            let is_odd = world.rank() == odd;
            agree(world, &[("program", "1".to_owned()), ("data", "x".repeat(5000))])?;
            let lr = if is_odd { "0.2" } else { "0.1" };
            let things =
                [("lr", lr.to_owned()), ("seed", "7".to_owned()), ("adapter", format!("{}H100", "x".repeat(9)))];
            Ok(agree(world, &things[..if is_odd { 2 } else { 3 }]))
        });
        let expected = format!(
            "adapter: rank {odd} has nothing, rank 0 has `xxxxxxxxxH100`; lr: rank {odd} has `0.2`, rank 0 has `0.1`; start all ranks with the same"
        );
        assert!(said.iter().all(|said| *said == Err(Error::usage(&expected))), "{said:?}");
    }
}

#[test]
fn the_patience_is_many_beats() {
    assert!(TIMING.patience_in_stop >= TIMING.beat * 4 && TIMING.patience >= TIMING.beat * 30);
}

#[test]
fn no_two_ranks_get_the_same_number_of_a_queue() {
    for size in SIZES {
        let taken = all(size, ms(1), |world| {
            world.barrier()?;
            let taken = (0..20).map(|_| Ok([world.ticket(0)?, world.ticket(7)?])).collect::<Result<Vec<_>>>()?;
            world.barrier().map(|()| taken)
        });
        for queue in 0..2 {
            let mut numbers: Vec<u64> = taken.iter().flatten().map(|pair| pair[queue]).collect();
            numbers.sort_unstable();
            assert_eq!(numbers, (0..20 * size as u64).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_fault_sets_a_flag_also_while_nobody_waits() {
    let ended = run(&Hub::new(2, ms(0)), 2, |world| {
        if world.rank() == 1 {
            return Err::<(), _>(Error::device("out of memory"));
        }
        let flag = Arc::new(AtomicBool::new(false));
        world.on_fault(flag.clone());
        let began = Instant::now();
        while !flag.load(Ordering::Relaxed) {
            assert!(began.elapsed() < Duration::from_secs(10));
            std::thread::sleep(ms(5));
        }
        world.check()
    });
    assert!(faults(ended)[0].ends_with("ended: out of memory"));
}
