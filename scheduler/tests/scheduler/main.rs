//! The scheduler through its public interface: tables at the boundaries, fairness, and a simulation of everything.

#[cfg(test)]
mod both_ways;
#[cfg(test)]
mod fairness;
#[cfg(test)]
mod images;
#[cfg(test)]
mod prefix_cache;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod steps;
#[cfg(test)]
mod support;
