//! Reads a matrix from NumPy's `.npy` format, one block of rows at a time.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use bert_model::file::refuse_pointer;
use bert_model::{Error, Result};
use half::f16;
use half::slice::HalfFloatSliceExt;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Maximum length of a header, in bytes; real ones are much shorter.
const MAX_HEADER: usize = 1 << 16;

/// A number format, in little-endian byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    F16,
    F32,
    F64,
}

impl Number {
    fn of(descriptor: &str) -> Option<Self> {
        match descriptor {
            "<f2" => Some(Self::F16),
            "<f4" => Some(Self::F32),
            "<f8" => Some(Self::F64),
            _ => None,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    fn to_f32(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F16 => {
                let halves: Vec<f16> = bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b)).collect();
                halves.to_f32_vec()
            }
            Self::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Self::F64 => bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        }
    }
}

/// A matrix in a `.npy` file.
pub struct Matrix {
    path: PathBuf,
    file: BufReader<File>,
    number: Number,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub width: usize,
    read: usize,
}

impl Matrix {
    /// Opens a file and reads the header.
    ///
    /// # Errors
    /// If the file is not a row-major matrix of `float16`, `float32` or `float64`, or does not have the size that its
    /// header implies.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path, "open"))?;
        let length = file.metadata().map_err(Error::io(path, "read"))?.len();
        let mut file = BufReader::new(file);
        let wrong = |found: String| Error::file(path, found, "a matrix written by numpy.save");
        let mut start = [0; 8];
        file.read_exact(&mut start).map_err(|_| wrong(format!("{length} bytes")))?;
        if !start.starts_with(MAGIC) {
            let mut beginning = start.to_vec();
            file.take(64).read_to_end(&mut beginning).map_err(Error::io(path, "read"))?;
            refuse_pointer(path, &beginning)?;
            return Err(wrong("another kind of file".into()));
        }
        let size_bytes = if start[6] == 1 { 2 } else { 4 };
        let mut size = [0; 4];
        file.read_exact(&mut size[..size_bytes]).map_err(|_| wrong(format!("{length} bytes")))?;
        let size = u32::from_le_bytes(size) as usize;
        if size > MAX_HEADER {
            return Err(wrong(format!("a header of {size} bytes")));
        }
        let mut header = vec![0; size];
        file.read_exact(&mut header).map_err(|_| wrong("a truncated header".into()))?;
        let header = String::from_utf8_lossy(&header).into_owned();
        let (number, rows, width) = parse(&header).map_err(|found| {
            Error::file(path, found, "a matrix of '<f2', '<f4' or '<f8' in row-major order (numpy.ascontiguousarray)")
        })?;
        let data = length - (8 + size_bytes + size) as u64;
        let expected =
            (rows as u64).checked_mul(width as u64).and_then(|count| count.checked_mul(number.bytes() as u64));
        if expected != Some(data) {
            return Err(wrong(format!("{data} bytes of data for the shape ({rows}, {width})")));
        }
        Ok(Self { path: path.into(), file, number, rows, width, read: 0 })
    }

    /// Reads the numbers of the next `count` rows, or of all remaining ones if there are fewer.
    ///
    /// # Errors
    /// If the rows cannot be read, or a number is not finite.
    pub fn next_rows(&mut self, count: usize) -> Result<Vec<f32>> {
        let count = count.min(self.rows - self.read);
        let mut bytes = vec![0; count * self.width * self.number.bytes()];
        self.file.read_exact(&mut bytes).map_err(Error::io(&self.path, "read"))?;
        let values = self.number.to_f32(&bytes);
        if let Some(place) = values.iter().position(|value| !value.is_finite()) {
            let row = self.read + place / self.width;
            let found = format!("{} in row {row} (from 0)", values[place]);
            return Err(Error::file(&self.path, found, "finite numbers"));
        }
        self.read += count;
        Ok(values)
    }
}

/// Parses the number format, rows and width in a header such as
/// `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
fn parse(header: &str) -> std::result::Result<(Number, usize, usize), String> {
    let value = |key: &str| header.split_once(&format!("'{key}':")).map(|(_, rest)| rest.trim_start());
    let descriptor = value("descr").and_then(|rest| rest.split('\'').nth(1)).unwrap_or("none");
    let number = Number::of(descriptor).ok_or_else(|| format!("numbers of type '{descriptor}'"))?;
    if value("fortran_order").is_some_and(|rest| rest.starts_with("True")) {
        return Err("column-major (Fortran) order".into());
    }
    let shape = value("shape").and_then(|rest| rest.strip_prefix('(')?.split(')').next()).unwrap_or_default();
    let sizes: Option<Vec<usize>> =
        shape.split(',').map(str::trim).filter(|size| !size.is_empty()).map(|size| size.parse().ok()).collect();
    match sizes.as_deref() {
        Some([rows, width]) => Ok((number, *rows, *width)),
        _ => Err(format!("the shape ({shape})")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn file(descriptor: &str, more: &str, data: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.npy");
        let header = format!("{{'descr': '{descriptor}', {more}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        fs::write(&path, bytes).unwrap();
        (directory, path)
    }

    #[test]
    fn every_kind_of_float_is_read_row_by_row() {
        let shape = "'fortran_order': False, 'shape': (3, 2)";
        let values = [1.0_f32, -2.5, 0.0, 65504.0, 5.960_464_5e-8, -0.333_251_95];
        // What numpy.float16 gives for the same bits.
        let halves = [0x3c00_u16, 0xc100, 0x0000, 0x7bff, 0x0001, 0xb555];
        for (descriptor, data) in [
            ("<f4", values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()),
            ("<f8", values.iter().flat_map(|x| f64::from(*x).to_le_bytes()).collect()),
            ("<f2", halves.iter().flat_map(|x| x.to_le_bytes()).collect()),
        ] {
            let (_directory, path) = file(descriptor, shape, &data);
            let mut matrix = Matrix::open(&path).unwrap();
            assert_eq!((matrix.rows, matrix.width), (3, 2));
            let rows =
                [matrix.next_rows(2).unwrap(), matrix.next_rows(2).unwrap(), matrix.next_rows(2).unwrap()].concat();
            assert_eq!(rows, values, "{descriptor}");
        }
    }

    #[test]
    fn what_is_no_matrix_of_floats_is_refused() {
        let message = |descriptor: &str, more: &str, data: &[u8]| {
            let (_directory, path) = file(descriptor, more, data);
            Matrix::open(&path).and_then(|mut matrix| matrix.next_rows(9)).unwrap_err().to_string()
        };
        let shape = "'fortran_order': False, 'shape': (1, 2)";
        assert!(message("<i8", shape, &[0; 16]).contains("found numbers of type '<i8'"));
        assert!(message("<f4", "'fortran_order': True, 'shape': (1, 2)", &[0; 8]).contains("found column-major"));
        assert!(message("<f4", "'fortran_order': False, 'shape': (2,)", &[0; 8]).contains("found the shape (2,)"));
        assert!(message("<f4", shape, &[0; 9]).contains("found 9 bytes of data for the shape (1, 2)"));
        let huge = "'fortran_order': False, 'shape': (9223372036854775807, 9223372036854775807)";
        assert!(message("<f4", huge, &[0; 8]).contains("bytes of data"));
        let nan = [1.0_f32.to_le_bytes(), f32::NAN.to_le_bytes()].concat();
        assert!(message("<f4", shape, &nan).contains("found NaN in row 0"));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.npy");
        fs::write(&path, "one two three").unwrap();
        assert!(Matrix::open(&path).err().unwrap().to_string().contains("found another kind of file"));
    }
}
