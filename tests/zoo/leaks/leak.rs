//! Boxes that are forgotten: RATE in MiB a second, after CALM seconds.

use std::time::{Duration, Instant};

fn main() {
    let words: Vec<f64> = std::env::args().skip(1).map(|word| word.parse().expect("RATE CALM")).collect();
    std::thread::sleep(Duration::from_secs_f64(words[1]));
    let (began, mut kept) = (Instant::now(), 0_f64);
    loop {
        while kept < began.elapsed().as_secs_f64() * words[0] * 256.0 {
            std::mem::forget(std::hint::black_box(vec![1_u8; 4 << 10]));
            kept += 1.0;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
