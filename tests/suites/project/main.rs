//! What the project says of itself is true: the table of statements, and the README.

mod circles;
mod conformance;
mod readme;
mod sizes;
