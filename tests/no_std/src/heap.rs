//! Memory for a program without an allocator.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering};

/// All the memory there is, and freed memory does not come back: both machines and their buffers need less than 16 KiB.
const SIZE: usize = 64 * 1024;
const ALIGN: usize = 16;

/// Hands out memory from front to back and takes none back.
#[repr(C, align(16))]
pub(crate) struct Bump {
    memory: UnsafeCell<[u8; SIZE]>,
    used: AtomicUsize,
}

// SAFETY: a byte of `memory` is handed out once, by whoever moved `used` past it.
unsafe impl Sync for Bump {}

impl Bump {
    pub(crate) const fn new() -> Self {
        Self { memory: UnsafeCell::new([0; SIZE]), used: AtomicUsize::new(0) }
    }
}

// SAFETY: blocks do not overlap, as `used` only grows; each lies within `memory`, which starts at a multiple of `ALIGN`,
// and starts at a multiple of its own alignment, which divides `ALIGN`.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() > ALIGN {
            return null_mut();
        }
        let place = |used: usize| Some(used.next_multiple_of(layout.align()));
        let end = |used: usize| place(used)?.checked_add(layout.size()).filter(|&end| end <= SIZE);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, end).ok().and_then(place) {
            // SAFETY: `end` has found that the block, and so its start, lies within `memory`.
            Some(start) => unsafe { self.memory.get().cast::<u8>().add(start) },
            None => null_mut(),
        }
    }

    unsafe fn dealloc(&self, _block: *mut u8, _layout: Layout) {}
}
