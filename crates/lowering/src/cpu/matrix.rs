//! Matrix products over slices.

/// A matrix in a slice, by strides.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) row_stride: usize,
    pub(crate) column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows one after the other, `stride` apart.
    pub(crate) fn rows(values: &'a [f32], stride: usize) -> Self {
        Self { values, row_stride: stride, column_stride: 1 }
    }

    /// The transpose of [`Self::rows`].
    pub(crate) fn columns(values: &'a [f32], stride: usize) -> Self {
        Self { values, row_stride: 1, column_stride: stride }
    }

    fn covers(&self, rows: usize, columns: usize) -> bool {
        (rows - 1) * self.row_stride + (columns - 1) * self.column_stride < self.values.len()
    }
}

/// c [m, n] = a [m, k] · b [k, n], or c += with `accumulate`; rows of c are `stride` apart. Runs on the calling thread.
pub(crate) fn multiply(
    c: &mut [f32],
    stride: usize,
    (m, k, n): (usize, usize, usize),
    a: Matrix,
    b: Matrix,
    accumulate: bool,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(
        k > 0 && a.covers(m, k) && b.covers(k, n) && n <= stride && (m - 1) * stride + n <= c.len(),
        "matrix sizes"
    );
    // SAFETY: all three matrices lie within their slices (asserted above); c is borrowed exclusively and its rows do
    // not overlap, since n ≤ stride.
    #[expect(unsafe_code, reason = "the GEMM takes pointers")]
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            stride as isize,
            accumulate,
            a.values.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
