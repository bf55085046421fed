use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::str::FromStr;

/// An amount of a resource as Kubernetes writes it: `100m`, `1.5Gi`, `2e3`.
///
/// Kept as a whole number of billionths, which is upstream's finest grain; what is finer is
/// rounded up and what is larger than 2^63-1 is capped, as upstream does
/// (k8s.io/apimachinery/pkg/api/resource). It remembers which family of suffixes it was written
/// with and prints in canonical form: no fraction, the largest suffix that fits.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Format {
    #[default]
    Decimal,
    Binary,
    Exponent,
}

/// Why a text is no quantity. The wording is upstream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// The text does not have the form of a number with a suffix.
    #[error(
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Form,
    /// The suffix is none of the known ones.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

const NANOS: i128 = 1_000_000_000;
const MAX_NANOS: i128 = i64::MAX as i128 * NANOS;
const DECIMAL: [(&str, i32); 10] = [
    ("E", 18),
    ("P", 15),
    ("T", 12),
    ("G", 9),
    ("M", 6),
    ("k", 3),
    ("", 0),
    ("m", -3),
    ("u", -6),
    ("n", -9),
];
const BINARY: [(&str, u32); 6] =
    [("Ei", 60), ("Pi", 50), ("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];

impl Quantity {
    /// A whole number without suffix.
    pub const fn from_units(units: i64) -> Self {
        Quantity { nanos: units as i128 * NANOS, format: Format::Decimal }
    }

    /// Thousandths, as CPU is counted (`100m`).
    pub const fn from_millis(millis: i64) -> Self {
        Quantity { nanos: millis as i128 * (NANOS / 1000), format: Format::Decimal }
    }

    /// Bytes, printed with binary suffixes (`512Mi`).
    pub const fn from_bytes(bytes: i64) -> Self {
        Quantity { nanos: bytes as i128 * NANOS, format: Format::Binary }
    }

    /// The amount in whole units, rounded up.
    pub fn units(&self) -> i64 {
        ceil_to_i64(self.nanos, NANOS)
    }

    /// The amount in thousandths, rounded up.
    pub fn millis(&self) -> i64 {
        ceil_to_i64(self.nanos, NANOS / 1000)
    }

    /// The same without what is finer than thousandths: rounded away from zero, as upstream keeps
    /// amounts of resources.
    #[must_use]
    pub fn coarse(self) -> Self {
        const MILLI: i128 = NANOS / 1000;
        match self.nanos % MILLI {
            0 => self,
            rest => Quantity { nanos: self.nanos - rest + MILLI * rest.signum(), ..self },
        }
    }

    /// The amount as a floating-point number, for ratios and scores only.
    pub fn as_f64(&self) -> f64 {
        self.nanos as f64 / NANOS as f64
    }

    /// True where the amount is zero, however it was written.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// True where the amount is below zero.
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// True where the amount has no fraction, as whole things (pods, devices) need.
    pub fn is_whole(&self) -> bool {
        self.nanos % NANOS == 0
    }
}

fn ceil_to_i64(nanos: i128, unit: i128) -> i64 {
    let whole = nanos.div_euclid(unit) + i128::from(nanos.rem_euclid(unit) != 0);
    i64::try_from(whole).unwrap_or(if whole < 0 { i64::MIN } else { i64::MAX })
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(QuantityError::Form);
        }
        let (format, scale) = parse_suffix(suffix)?;
        let magnitude = scale.apply(whole, fraction).min(MAX_NANOS);
        Ok(Quantity { nanos: if negative { -magnitude } else { magnitude }, format })
    }
}

/// What the digits are multiplied with to give billionths.
enum Scale {
    Ten(i32),
    Two(u32),
}

fn parse_suffix(suffix: &str) -> Result<(Format, Scale), QuantityError> {
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Ok((Format::Decimal, Scale::Ten(*power)));
    }
    if let Some((_, power)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Ok((Format::Binary, Scale::Two(*power)));
    }
    match suffix.strip_prefix(['e', 'E']).map(str::parse::<i32>) {
        Some(Ok(power)) => Ok((Format::Exponent, Scale::Ten(power))),
        _ => Err(QuantityError::Suffix),
    }
}

impl Scale {
    /// The absolute value in billionths, rounded up, saturating far above the cap.
    fn apply(&self, whole: &str, fraction: &str) -> i128 {
        let whole = whole.trim_start_matches('0');
        let fraction = fraction.trim_end_matches('0');
        if whole.is_empty() && fraction.is_empty() {
            return 0;
        }
        let (power, shift) = match self {
            Scale::Ten(power) => (i64::from(*power), 0),
            Scale::Two(shift) => (0, *shift),
        };
        // Digits beyond what the cap can show do not matter: too many before the point are over
        // the cap, and those far behind it only round up.
        if whole.len() as i64 + power > 30 {
            return i128::MAX;
        }
        let digits = format!("{whole}{fraction}");
        let exponent = power + 9 - fraction.len() as i64;
        let kept = digits.len().min(30);
        let inexact = digits[kept..].bytes().any(|b| b != b'0');
        let mantissa: i128 = digits[..kept].parse().unwrap_or(0);
        let exponent = exponent + (digits.len() - kept) as i64;
        let shifted = mantissa.saturating_mul(1 << shift.min(60));
        match u32::try_from(exponent) {
            Ok(up) => 10i128.checked_pow(up).map_or(i128::MAX, |p| shifted.saturating_mul(p)),
            Err(_) => {
                let down = u32::try_from(-exponent).ok().and_then(|d| 10i128.checked_pow(d));
                match down {
                    Some(divisor) => {
                        shifted / divisor + i128::from(shifted % divisor != 0 || inexact)
                    }
                    None => 1,
                }
            }
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        if self.format == Format::Binary && self.is_whole() && self.nanos.abs() >= 1024 * NANOS {
            let units = self.nanos / NANOS;
            let (suffix, power) =
                BINARY.iter().find(|(_, power)| units % (1i128 << power) == 0).unwrap_or(&("", 0));
            return write!(f, "{}{suffix}", units >> power);
        }
        let fits = |power: i32| self.nanos % 10i128.pow((power + 9) as u32) == 0;
        let (suffix, power) = DECIMAL.iter().find(|(_, power)| fits(*power)).unwrap_or(&("n", -9));
        let mantissa = self.nanos / 10i128.pow((power + 9) as u32);
        match self.format {
            Format::Exponent if *power != 0 => write!(f, "{mantissa}e{power}"),
            _ => write!(f, "{mantissa}{suffix}"),
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Quantity;

    fn add(self, other: Quantity) -> Quantity {
        // A zero that nothing was written for takes the other's way of printing.
        let format = if self.nanos == 0 { other.format } else { self.format };
        Quantity { nanos: self.nanos + other.nanos, format }
    }
}

impl Sub for Quantity {
    type Output = Quantity;

    fn sub(self, other: Quantity) -> Quantity {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Quantity { nanos: self.nanos - other.nanos, format }
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Quantity) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Quantity) {
        *self = *self - other;
    }
}

impl Sum for Quantity {
    fn sum<I: Iterator<Item = Quantity>>(amounts: I) -> Quantity {
        amounts.fold(Quantity::default(), |sum, amount| sum + amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        text.parse::<Quantity>().map_or_else(|e| format!("error: {e}"), |q| q.to_string())
    }

    #[test]
    fn prints_canonically() {
        for (written, printed) in [
            ("0", "0"),
            ("0.5", "500m"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("1000Ki", "1000Ki"),
            ("512", "512"),
            ("1000", "1k"),
            ("1500m", "1500m"),
            ("2000m", "2"),
            ("1e3", "1e3"),
            ("1E6", "1e6"),
            ("100E", "9223372036854775807"),
            ("-5m", "-5m"),
            ("+3", "3"),
            (".5Ki", "512"),
            ("0.1n", "1n"),
            ("0.0000000001", "1n"),
            ("128974848", "128974848"),
            ("129e6", "129e6"),
            ("123Mi", "123Mi"),
        ] {
            assert_eq!(canonical(written), printed, "{written}");
        }
    }

    #[test]
    fn refuses_what_is_no_quantity() {
        for (written, error) in [
            ("", QuantityError::Form),
            ("abc", QuantityError::Form),
            ("1.2.3", QuantityError::Form),
            ("1Q", QuantityError::Suffix),
            ("1e", QuantityError::Suffix),
            ("1 Gi", QuantityError::Suffix),
        ] {
            assert_eq!(written.parse::<Quantity>(), Err(error), "{written}");
        }
    }

    #[test]
    fn counts_and_compares() {
        let q = |t: &str| t.parse::<Quantity>().unwrap_or_default();
        assert_eq!(q("1500m").units(), 2);
        assert_eq!(q("1500m").millis(), 1500);
        assert_eq!(q("1Ki").units(), 1024);
        assert_eq!(q("1"), q("1000m"));
        assert!(q("1Gi") > q("1G"));
        assert_eq!((q("1Gi") + q("1Gi")).to_string(), "2Gi");
        assert_eq!([q("100m"), q("1")].into_iter().sum::<Quantity>().to_string(), "1100m");
    }
}
