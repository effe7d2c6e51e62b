//! The least that a process can do: it prints a line.

fn main() {
    println!("hello");
}
