//! Checks of the source tree itself: its vocabulary and its module graph.

mod modules;
mod repository;
mod vocabulary;
