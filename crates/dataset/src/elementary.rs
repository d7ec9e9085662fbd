//! Elementary functions from additions, multiplications, divisions and square roots only, which IEEE 754 rounds in
//! one way: equal bits on every machine, where the C library's `sin` and `log` differ from version to version.

use std::f64::consts::{FRAC_PI_2, LN_2, SQRT_2};

/// Natural logarithm of a positive normal number; relative error below 1e-14.
pub fn ln(x: f64) -> f64 {
    debug_assert!(x >= f64::MIN_POSITIVE && x.is_finite());
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52) as i64 - 1023) as f64;
    let mut mantissa = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
    if mantissa > SQRT_2 {
        mantissa *= 0.5;
        exponent += 1.0;
    }
    // ln m = 2 artanh((m − 1) / (m + 1)); the argument is below 0.172, so ten terms reach 1e-17.
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let z = s * s;
    let mut series = 0.0;
    for k in (0..11).rev() {
        series = series * z + 1.0 / f64::from(2 * k + 1);
    }
    exponent * LN_2 + 2.0 * s * series
}

/// e to the power of `x`; 0 below −700, infinite above 700.
pub fn exp(x: f64) -> f64 {
    if x < -700.0 {
        return 0.0;
    }
    if x > 700.0 {
        return f64::INFINITY;
    }
    let k = (x / LN_2).round();
    let r = x - k * LN_2;
    let mut series = 1.0;
    for n in (1..15).rev() {
        series = 1.0 + series * r / f64::from(n);
    }
    series * f64::from_bits(((k as i64 + 1023) as u64) << 52)
}

/// Sine and cosine of `turns` full circles.
pub fn sin_cos(turns: f64) -> (f64, f64) {
    let quarters = (turns * 4.0).round();
    let angle = (turns * 4.0 - quarters) * FRAC_PI_2;
    let z = angle * angle;
    let (mut sine, mut cosine) = (0.0, 0.0);
    // |angle| ≤ π/4: Taylor to the 17th power is exact to the last bits.
    for n in (0..9).rev() {
        let even = f64::from(2 * n);
        sine = 1.0 - z / ((even + 2.0) * (even + 3.0)) * sine;
        cosine = 1.0 - z / ((even + 1.0) * (even + 2.0)) * cosine;
    }
    sine *= angle;
    match (quarters as i64).rem_euclid(4) {
        0 => (sine, cosine),
        1 => (cosine, -sine),
        2 => (-sine, -cosine),
        _ => (-cosine, sine),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agree_with_the_standard_library() {
        for i in 1..2000 {
            let x = f64::from(i) * 0.0137;
            assert!((ln(x) - x.ln()).abs() <= 1e-14 * x.ln().abs().max(1.0), "ln {x}");
            assert!((ln(x * 1e-200) - (x * 1e-200).ln()).abs() < 1e-12);
            assert!((exp(x) / x.exp() - 1.0).abs() < 1e-13, "exp {x}");
            assert!((exp(-x) / (-x).exp() - 1.0).abs() < 1e-13, "exp -{x}");
            let (sine, cosine) = sin_cos(x - 13.0);
            let angle = (x - 13.0) * std::f64::consts::TAU;
            assert!((sine - angle.sin()).abs() < 1e-13 && (cosine - angle.cos()).abs() < 1e-13);
        }
        assert_eq!((ln(1.0), exp(0.0), sin_cos(0.0), sin_cos(0.25)), (0.0, 1.0, (0.0, 1.0), (1.0, 0.0)));
        assert_eq!((exp(-1e9), exp(1e9)), (0.0, f64::INFINITY));
    }
}
