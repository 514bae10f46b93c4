//! The reference against answers that are known without it, and the model against the reference.

use fulgurite::{Dtype, Mask};
use reference::forward::closed_forms;
use reference::forward::lowprec::{self, Arithmetic};
use reference::forward::oracle::{Problem, attention};
use reference::forward::values::Values;
use reference::tensor::RowId;

#[test]
fn closed_forms_hold() {
    for (name, form) in closed_forms::ALL {
        if let Err(reason) = form() {
            panic!("{name}: {reason}");
        }
    }
}

#[test]
fn some_rows_are_the_same_as_all_rows() {
    let inputs = Values::Normal.inputs(Dtype::F16, [2, 4, 130, 24], [2, 2, 90, 24], 3);
    let (q, k, v) = (inputs.q.view(), inputs.k.view(), inputs.v.view());
    let problem = Problem { q, k, v, mask: Mask::Causal, scale: 0.2 };
    let all = attention(&problem, &problem.rows());
    let rows: Vec<RowId> = problem.rows().into_iter().step_by(37).collect();
    let some = attention(&problem, &rows);
    for (index, id) in rows.iter().enumerate() {
        let place = (id.batch * 4 + id.head) * 130 + id.row;
        assert_eq!(some.out[index * 24..][..24], all.out[place * 24..][..24]);
        assert_eq!(some.lse[index], all.lse[place]);
        assert_eq!(some.kept[index].len(), (id.row + 91).saturating_sub(130));
    }
}

/// The figures that FlashAttention-2 and cuDNN show on normal data.
#[test]
fn the_model_has_the_error_of_known_kernels() {
    for (dtype, least, most) in [(Dtype::Bf16, 1.9e-3, 2.3e-3), (Dtype::F16, 2.4e-4, 2.9e-4)] {
        let inputs = Values::Normal.inputs(dtype, [1, 1, 256, 128], [1, 1, 2048, 128], 5);
        let (q, k, v) = (inputs.q.view(), inputs.k.view(), inputs.v.view());
        let scale = 1.0 / 128f64.sqrt();
        let problem = Problem { q, k, v, mask: Mask::Full, scale };
        let exact = attention(&problem, &problem.rows());
        let model = lowprec::attention(&problem, &problem.rows(), Arithmetic::PEER);
        let (mut error, mut norm) = (0.0, 0.0);
        for (want, &got) in exact.out.iter().zip(&model.out) {
            error += (want - f64::from(reference::tensor::decode(dtype, got))).powi(2);
            norm += want * want;
        }
        let relative = f64::sqrt(error / norm);
        assert!((least..most).contains(&relative), "{}: {relative:.3e}", dtype.name());
    }
}
