//! The checker against histories whose answer is known: classic ones, long ones of a real register, good and broken, and
//! thousands of short ones that a search without any cleverness decides, too.

mod broken;
mod brute;
mod classic;
mod recorded;
mod rng;
mod windows;
