//! Counts the heap that the current thread holds, so that a parser's peak can be measured beside other threads.
//!
//! A reallocation counts as a new block beside the old one, which is the worst that an allocator may do. Only this
//! test binary allocates through it; the published counters keep one number for the whole process.

// A global allocator cannot be had without an unsafe impl; this one passes every call to the system's unchanged.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Meter;

#[global_allocator]
static METER: Meter = Meter;

thread_local! {
    // Constant and without a destructor, so that using them neither allocates nor fails on a thread that ends.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn grow(bytes: usize) {
    let held = HELD.get() + bytes as isize;
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
}

fn shrink(bytes: usize) {
    // Below zero where a thread frees what another one allocated.
    HELD.set(HELD.get() - bytes as isize);
}

// SAFETY: every block comes from `System` and goes back to it with the layout it was asked for by; the counters are
// thread-local integers and touch no block.
unsafe impl GlobalAlloc for Meter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's promises are System's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        grow(size);
        // SAFETY: as above.
        let moved = unsafe { System.realloc(block, layout, size) };
        shrink(layout.size());
        moved
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        shrink(layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

/// The result of `work`, and the most bytes that it held at once beyond what its thread held before.
pub fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = work();
    (result, usize::try_from(PEAK.get() - before).unwrap_or(0))
}

#[test]
fn the_meter_counts() {
    let peak = |work: fn()| peak_of(work).1;
    assert_eq!(peak(|| drop(std::hint::black_box(vec![0_u8; 1000]))), 1000);
    assert_eq!(peak(|| drop(std::hint::black_box((vec![0_u8; 1000], vec![1_u8; 24])))), 1024);
    let grown = peak(|| {
        let mut bytes = std::hint::black_box(Vec::<u8>::with_capacity(1000));
        bytes.reserve_exact(3000);
        drop(std::hint::black_box(bytes));
    });
    assert_eq!(grown, 4000);
    assert_eq!(peak(|| ()), 0);
}
