//! Axis scales: positions, tick values, and number formatting.
//!
//! Ticks are 1, 2 or 5 times a power of ten.

/// Larger values are not measurements, and their differences could overflow.
const LARGEST: f64 = 1e100;

/// Whether a value can be drawn.
pub(super) fn is_drawable(value: f64) -> bool {
    value.abs() <= LARGEST
}

/// One axis, mapping values to fractions of its length.
#[derive(Debug, Clone)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    is_log: bool,
    ticks: Vec<f64>,
}

impl Scale {
    /// A linear axis from `low` to `high` with about `about` ticks.
    pub(super) fn linear(low: f64, high: f64, about: usize) -> Self {
        let (low, high) = with_extent(low, high);
        let step = nice_step((high - low) / about.max(1) as f64);
        Self { low, high, is_log: false, ticks: linear_ticks(low, high, step) }
    }

    /// A linear axis from `low` to `high`, extended to whole ticks, but not beyond the bounds unless the range itself
    /// exceeds them.
    pub(super) fn bounded(low: f64, high: f64, bounds: Option<(f64, f64)>, about: usize) -> Self {
        let bounds = bounds.filter(|(smallest, largest)| *smallest <= low && high <= *largest);
        let (low, high) = with_extent(low, high);
        let (low, high) = bounds.map_or((low, high), |(smallest, largest)| (low.max(smallest), high.min(largest)));
        let step = nice_step((high - low) / about.max(1) as f64);
        // Less than a thousandth of a step beyond a tick is rounding error, not data.
        let (low, high) = ((low / step + 1e-3).floor() * step, (high / step - 1e-3).ceil() * step);
        Self { low, high, is_log: false, ticks: linear_ticks(low, high, step) }
    }

    /// A linear axis of counts (steps, epochs), whose ticks are whole numbers.
    pub(super) fn counted(low: f64, high: f64, about: usize) -> Self {
        let (low, high) = with_extent(low, high);
        let step = nice_step((high - low) / about.max(1) as f64).max(1.0);
        Self { low, high, is_log: false, ticks: linear_ticks(low, high, step) }
    }

    /// A logarithmic axis; both ends must be positive.
    pub(super) fn log(low: f64, high: f64, about: usize) -> Self {
        let (low, high) = if high / low < 1.01 { (low / 1.5, high * 1.5) } else { (low, high) };
        // Within less than a decade there is hardly a power of ten; evenly spaced ticks are more
        // useful.
        if high / low < 5.0 {
            let ticks = Self::linear(low, high, about).ticks;
            return Self { low, high, is_log: true, ticks };
        }
        let multiples = |mantissas: &'static [f64], every: usize| {
            let powers = (low.log10().floor() as i32..=high.log10().ceil() as i32).step_by(every);
            powers.flat_map(move |power| mantissas.iter().map(move |mantissa| mantissa * 10f64.powi(power)))
        };
        let decades = (high / low).log10();
        let (mantissas, every): (&[f64], f64) = match decades {
            ..1.7 => (&[1.0, 2.0, 5.0], 1.0),
            ..3.2 => (&[1.0, 3.0], 1.0),
            _ => (&[1.0], (decades / about.max(1) as f64).ceil()),
        };
        let ticks: Vec<f64> = multiples(mantissas, every as usize).collect();
        // End the axis at round numbers, but not a whole decade away from the data.
        let round: Vec<f64> = multiples(&[1.0, 2.0, 5.0], 1).collect();
        let low = round.iter().copied().rfind(|number| *number <= low * 1.001).unwrap_or(low);
        let high = round.iter().copied().find(|number| *number >= high * 0.999).unwrap_or(high);
        let ticks = ticks.into_iter().filter(|tick| (low * 0.999..=high * 1.001).contains(tick)).collect();
        Self { low, high, is_log: true, ticks }
    }

    /// The position of `value` on the axis, from 0 at the low end to 1 at the high end.
    pub(super) fn place(&self, value: f64) -> f64 {
        let place = if self.is_log {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        place.clamp(0.0, 1.0)
    }

    /// The ticks with their labels, in ascending order.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        let largest = self.ticks.iter().fold(0.0f64, |largest, tick| largest.max(tick.abs()));
        let step = match self.ticks.as_slice() {
            [first, second, ..] => second - first,
            _ => largest,
        };
        // On a logarithmic axis each label has the precision of its own tick.
        let has_even_steps = !self.is_log || self.high / self.low < 5.0;
        let label = |tick: f64| if has_even_steps { name(tick, step, largest) } else { name(tick, tick, tick) };
        self.ticks.iter().map(|tick| (*tick, label(*tick))).collect()
    }
}

/// The range itself, or a wider one if it is (almost) empty.
fn with_extent(low: f64, high: f64) -> (f64, f64) {
    let size = low.abs().max(high.abs());
    if high - low > size * 1e-9 {
        (low, high)
    } else if size == 0.0 {
        // Most quantities (losses, rates, shares) cannot be negative.
        (0.0, 1.0)
    } else {
        (low - size * 0.5, high + size * 0.5)
    }
}

/// The smallest number of the form 1, 2 or 5 times a power of ten that is at least `step`.
pub(super) fn nice_step(step: f64) -> f64 {
    let power = 10f64.powi((step.log10() + 1e-9).floor() as i32);
    let mantissa = step / power;
    power * [1.0, 2.0, 5.0].into_iter().find(|nice| mantissa <= nice * (1.0 + 1e-9)).unwrap_or(10.0)
}

fn linear_ticks(low: f64, high: f64, step: f64) -> Vec<f64> {
    // Multiples of the step, since a running sum would drift.
    let first = (low / step - 1e-6).ceil();
    let count = (high / step + 1e-6).floor() - first;
    (0..=count.clamp(0.0, 100.0) as usize).map(|index| (first + index as f64) * step).collect()
}

/// Formats a tick label, as precisely as the tick spacing requires.
fn name(tick: f64, step: f64, largest: f64) -> String {
    let power = |value: f64| (value.abs().log10() + 1e-9).floor();
    if tick == 0.0 || tick.abs() < step.abs() * 1e-6 {
        return "0".into();
    }
    if !(1e-3..1e12).contains(&largest) {
        let digits = (power(tick) - power(step)).clamp(0.0, 6.0) as usize;
        return short_exponent(&format!("{tick:.digits$e}"));
    }
    let (unit, suffix) = match largest {
        1e9.. => (1e9, "G"),
        1e6.. => (1e6, "M"),
        1e4.. => (1e3, "k"),
        _ => (1.0, ""),
    };
    let decimals = (-power(step / unit)).clamp(0.0, 12.0) as usize;
    format!("{:.decimals$}{suffix}", tick / unit).replace('-', "−")
}

/// Shortens `1.50e-4` to `1.5e−4`.
fn short_exponent(number: &str) -> String {
    let (mantissa, exponent) = number.split_once('e').unwrap_or((number, "0"));
    let mantissa = if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa };
    format!("{mantissa}e{exponent}").replace('-', "−")
}

/// Formats a measurement to about four digits.
pub(super) fn figure(value: f64) -> String {
    let text = match value.abs() {
        size if !size.is_finite() => return "–".into(),
        0.0 => return "0".into(),
        ..1e-3 | 1e6.. => return short_exponent(&format!("{value:.2e}")),
        1000.0.. => return grouped(&format!("{value:.0}")),
        100.0.. => format!("{value:.1}"),
        10.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    };
    text.replace('-', "−")
}

/// Formats `1234567` as `1,234,567`.
pub(super) fn grouped(digits: &str) -> String {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |rest| ("−", rest));
    let mut text = String::from(sign);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a fraction as a percentage; only exact values are shown as 0 % or 100 %.
pub(super) fn percent(share: f64) -> String {
    match share * 100.0 {
        percent if !percent.is_finite() => "–".into(),
        percent if percent > 0.0 && percent < 0.1 => "< 0.1 %".into(),
        percent if percent > 99.9 && percent < 100.0 => "> 99.9 %".into(),
        percent => format!("{percent:.1} %").replace('-', "−"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(scale: &Scale) -> Vec<String> {
        scale.ticks().into_iter().map(|(_, name)| name).collect()
    }

    #[test]
    fn steps_are_one_two_or_five() {
        for (step, nice) in [(1.0, 1.0), (1.1, 2.0), (2.0, 2.0), (2.1, 5.0), (5.1, 10.0), (0.03, 0.05), (740.0, 1000.0)]
        {
            assert!((nice_step(step) / nice - 1.0).abs() < 1e-12, "{step}: {}", nice_step(step));
        }
    }

    #[test]
    fn ticks_are_short_names_of_round_numbers() {
        assert_eq!(names(&Scale::bounded(0.13, 0.87, None, 5)), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(names(&Scale::linear(0.0, 2000.0, 5)), ["0", "500", "1000", "1500", "2000"]);
        assert_eq!(names(&Scale::linear(0.0, 1e6, 5)), ["0", "0.2M", "0.4M", "0.6M", "0.8M", "1.0M"]);
        assert_eq!(names(&Scale::linear(0.0, 1e-4, 5)), ["0", "2e−5", "4e−5", "6e−5", "8e−5", "1e−4"]);
        assert_eq!(names(&Scale::linear(-1.0, 1.0, 4)), ["−1.0", "−0.5", "0", "0.5", "1.0"]);
    }

    #[test]
    fn counted_axes_have_whole_ticks() {
        assert_eq!(names(&Scale::counted(1.0, 4.0, 12)), ["1", "2", "3", "4"]);
        assert_eq!(names(&Scale::counted(3.0, 3.0, 12)), ["2", "3", "4"]);
        assert_eq!(names(&Scale::counted(0.0, 50_000.0, 5)), ["0", "10k", "20k", "30k", "40k", "50k"]);
    }

    #[test]
    fn logarithmic_axes_name_powers() {
        assert_eq!(names(&Scale::log(0.002, 30.0, 6)), ["0.01", "0.1", "1", "10"]);
        assert_eq!(names(&Scale::log(3.0, 40.0, 6)), ["2", "5", "10", "20", "50"]);
        let scale = Scale::log(1.0, 100.0, 6);
        assert!((scale.place(10.0) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn an_axis_does_not_leave_what_is_possible() {
        let share = |low, high| names(&Scale::bounded(low, high, Some((0.0, 1.0)), 5));
        assert_eq!(share(1.0, 1.0), ["0.5", "0.6", "0.7", "0.8", "0.9", "1.0"]);
        assert_eq!(share(0.0, 0.0), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(share(0.97, 1.0).last().unwrap(), "1.00");
        // A score in percent is not a fraction.
        assert_eq!(share(50.0, 90.0).last().unwrap(), "90");
        assert_eq!(names(&Scale::bounded(-0.1, 0.9, Some((-1.0, 1.0)), 5)).last().unwrap(), "1.0");
    }

    #[test]
    fn hard_ranges_have_few_finite_ticks() {
        for (low, high) in
            [(5.0, 5.0), (0.0, 0.0), (-LARGEST, LARGEST), (1e16, 1e16 + 2.0), (0.0, 1e-300), (-3.0, -3.0)]
        {
            let scale = Scale::bounded(low, high, None, 5);
            assert!((2..=14).contains(&scale.ticks.len()), "{low} {high}: {:?}", scale.ticks);
            assert!(scale.place((low + high) / 2.0).is_finite());
        }
        for (low, high) in [(1e-100, 1e100), (5.0, 5.0), (1e-300, 1.0), (2.0, 4.0)] {
            let scale = Scale::log(low, high, 5);
            assert!((2..=14).contains(&scale.ticks.len()), "{low} {high}: {:?}", scale.ticks);
            assert!(scale.place(low).is_finite());
        }
    }

    #[test]
    fn figures_are_short() {
        let values = [0.0, 2.13456, -0.5, 45.678, 123.45, 12345.6, 5e-5, 3e7, f64::NAN];
        let texts = ["0", "2.135", "−0.500", "45.68", "123.5", "12,346", "5e−5", "3e7", "–"];
        assert_eq!(values.map(figure), texts);
        assert_eq!(
            [0.0, 1.0, 0.9999, 0.0001, 0.123].map(percent),
            ["0.0 %", "100.0 %", "> 99.9 %", "< 0.1 %", "12.3 %"]
        );
    }
}
