//! The program `devicebound hub` as it is started by its users.

mod configurations;
mod connections;
mod faults;
mod jobs;
mod routes;
mod thermostats;
