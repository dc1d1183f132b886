//! An allocator that counts what the present thread asks for.
//!
//! A test program puts it below all its tests by
//! `#[global_allocator] static COUNTING: Counting = Counting;`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static ASKED_FOR: Cell<Allocations> = const { Cell::new(Allocations { blocks: 0, bytes: 0 }) };
    static GIVEN_BACK: Cell<usize> = const { Cell::new(0) };
}

/// What was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocations {
    /// Blocks that were made or made larger.
    pub blocks: usize,
    /// Their bytes; of a block that was made larger, those that it has now.
    pub bytes: usize,
}

/// What `work` asks for; nothing where [`Counting`] is not the allocator.
pub fn allocations(work: impl FnOnce()) -> Allocations {
    let before = ASKED_FOR.get();
    work();
    let after = ASKED_FOR.get();
    Allocations { blocks: after.blocks - before.blocks, bytes: after.bytes - before.bytes }
}

/// How many bytes more `work` asks for than it gives back; nothing where [`Counting`] is not the allocator.
pub fn growth(work: impl FnOnce()) -> isize {
    let before = GIVEN_BACK.get();
    let asked_for = allocations(work).bytes;
    asked_for.cast_signed() - (GIVEN_BACK.get() - before).cast_signed()
}

/// The system's allocator, and a count.
#[derive(Clone, Copy, Debug)]
pub struct Counting;

// SAFETY: every call is handed to the system's allocator as it is.
#[allow(
    unsafe_code,
    reason = "an allocator cannot be written without, and only an allocator sees each allocation"
)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        GIVEN_BACK.set(GIVEN_BACK.get() + layout.size());
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        GIVEN_BACK.set(GIVEN_BACK.get() + layout.size());
        unsafe { System.dealloc(block, layout) }
    }
}

fn count(size: usize) {
    let Allocations { blocks, bytes } = ASKED_FOR.get();
    ASKED_FOR.set(Allocations { blocks: blocks + 1, bytes: bytes + size });
}
