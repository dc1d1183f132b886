//! redb panics on some of the bytes that no crash leaves behind, but damage does.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use super::error::Error;

thread_local! {
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Reads something, and takes a panic for damage. Nothing that the library worked on may be used afterwards.
///
/// What a panic prints is of use to nobody here: the error that it becomes says what is wrong and what to do.
pub(super) fn unless_it_panics<T>(read: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !IS_GUARDED.get() {
                usual(panic);
            }
        }));
    });
    let before = IS_GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(read));
    IS_GUARDED.set(before);
    let damaged = |_| Error::Damaged("its pages are not those that were written".to_owned());
    result.map_err(damaged).flatten()
}
