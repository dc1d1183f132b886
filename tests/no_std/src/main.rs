//! A program without std in which a device and a hub talk: the proof that the core needs none.
//!
//! It brings its own panic handler and its own memory; of the system it uses the start of the program, `write` for a
//! panic's message, and `_exit`. It ends with 0 only if the conversation went as it should:
//!
//! ```text
//! cargo run --release --manifest-path tests/no_std/Cargo.toml
//! cargo run --profile small --no-default-features --manifest-path tests/no_std/Cargo.toml   # a device alone
//! size tests/no_std/target/small/devicebound-no-std     # code (text) and data of all that is linked
//! ```
#![no_std]
#![no_main]

extern crate alloc;

#[cfg(feature = "hub")]
mod conversation;
#[cfg(not(feature = "hub"))]
#[path = "device_alone.rs"]
mod conversation;
mod heap;

use core::ffi::{c_char, c_int, c_void};
use core::fmt::{self, Write as _};
use core::panic::PanicInfo;

#[link(name = "c")]
unsafe extern "C" {
    fn write(file: c_int, bytes: *const c_void, length: usize) -> isize;
    fn _exit(status: c_int) -> !;
}

#[global_allocator]
static HEAP: heap::Bump = heap::Bump::new();

// SAFETY: nothing else in the program is called `main`, and the C library starts it with these arguments.
#[unsafe(no_mangle)]
extern "C" fn main(_argc: c_int, _argv: *const *const c_char) -> c_int {
    conversation::hold();
    0
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let _ = writeln!(StandardError, "{info}"); // there is nobody left to tell
    // SAFETY: `_exit` may be called at any time.
    unsafe { _exit(101) } // as a panicked program with std does
}

struct StandardError;

impl fmt::Write for StandardError {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // SAFETY: pointer and length are those of `text`, which outlives the call.
        unsafe { write(2, text.as_ptr().cast(), text.len()) };
        Ok(())
    }
}
