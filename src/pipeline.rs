//! The whole compiler as one readable function per purpose.
