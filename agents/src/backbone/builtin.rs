//! `polylogue-tiny`: our own small pretrained decoder, embedded in the binary.
