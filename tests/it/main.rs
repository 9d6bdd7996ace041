//! One test binary: whole runs, whole command lines, the data, and the rules of the house.

#[cfg(test)]
mod adapters;
#[cfg(test)]
mod command_line;
#[cfg(test)]
mod customer_data;
#[cfg(test)]
mod devices;
#[cfg(test)]
mod endings;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod fork;
#[cfg(test)]
mod invalid_scenarios;
#[cfg(test)]
mod pretraining;
#[cfg(test)]
mod recordings;
#[cfg(test)]
mod resume;
#[cfg(test)]
mod run_directories;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod society;
#[cfg(test)]
mod starting_adapter;
#[cfg(test)]
mod terminal;
#[cfg(test)]
mod tidy;
#[cfg(test)]
mod training_settings;
#[cfg(test)]
mod tuning;
