//! One test binary: whole runs, whole command lines, the data, and the rules of the house.

mod command_line;
mod customer_data;
mod invalid_scenarios;
mod pretraining;
mod society;
mod tidy;
