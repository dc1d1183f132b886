//! An allocator that counts what each thread asks for.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// Blocks that this thread asked for so far, where [`Counting`] is the allocator.
#[must_use]
pub fn count() -> u64 {
    COUNT.get()
}

/// The system's allocator. Blocks that are made or made larger count; to give one back is nothing to count, as it was
/// made before.
#[derive(Clone, Copy, Debug)]
pub struct Counting;

// SAFETY: every call is handed to the system's allocator as it is.
#[allow(
    unsafe_code,
    reason = "an allocator cannot be written without, and only an allocator sees each allocation"
)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add_one();
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add_one();
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add_one();
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { System.dealloc(block, layout) }
    }
}

fn add_one() {
    COUNT.set(COUNT.get() + 1);
}
