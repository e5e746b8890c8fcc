// Bindings of the tree softmax, in single and in double precision.
#pragma once

#include "convert.hpp"
#include "tree_fit.hpp"

template <class T>
using Values = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;
template <class T>
using Writable = nb::ndarray<T, nb::c_contig, nb::device::cpu>;
using Starts = nb::ndarray<const std::int64_t, nb::c_contig, nb::device::cpu>;

inline Tree read_tree(const Codes& parent, const Codes& leaf_of, const Codes& first, const Codes& last) {
    const std::size_t m = parent.size();
    if (m == 0 || leaf_of.size() != m || first.size() != m || last.size() != m)
        throw std::invalid_argument("parent, leaf_of, first and last need one entry for each node");
    Tree tree;
    tree.parent.assign(parent.data(), parent.data() + m);
    tree.leaf_of.assign(leaf_of.data(), leaf_of.data() + m);
    tree.first.assign(first.data(), first.data() + m);
    tree.last.assign(last.data(), last.data() + m);
    for (std::size_t v = 0; v < m; ++v) tree.leaves += tree.leaf_of[v] >= 0;
    for (std::size_t v = 0; v < m; ++v)
        if (tree.parent[v] < -1 || tree.parent[v] >= static_cast<std::int32_t>(v) || tree.leaf_of[v] >= tree.leaves ||
            tree.first[v] < 0 || tree.first[v] >= tree.last[v] || tree.last[v] > tree.leaves)
            throw std::invalid_argument("the nodes of a tree must come parents first, each with leaves below it");
    return tree;
}
template <class T>
Sparse<T> read_sparse(const Starts& start, const Codes& index, const Values<T>& value, std::int64_t across) {
    if (start.size() < 1 || index.size() != value.size() || start.data()[0] != 0 ||
        start.data()[start.size() - 1] != static_cast<std::int64_t>(index.size()) || start.size() > INT32_MAX || across >= INT32_MAX)
        throw std::invalid_argument("the parts of a sparse matrix do not fit together");
    for (std::size_t i = 1; i < start.size(); ++i)
        if (start.data()[i] < start.data()[i - 1]) throw std::invalid_argument("the starts of a sparse matrix must not fall");
    for (std::size_t e = 0; e < index.size(); ++e)
        if (index.data()[e] < 0 || index.data()[e] >= across) throw std::invalid_argument("a column lies outside a sparse matrix");
    return {start.data(), index.data(), value.data(), static_cast<std::int64_t>(start.size()) - 1, across};
}

// TreeSoftmax with the arrays it reads
template <class T>
class TreeProblem {
  public:
    TreeProblem(const Codes& parent, const Codes& leaf_of, const Codes& first, const Codes& last, Starts start, Codes index,
                Values<T> value, Codes label, Array weight, Codes group, int groups, const Values<T>& offset, int threads)
        : start_(start), index_(index), value_(value), label_(label), weight_(weight), group_(group), groups_(groups),
          f_(make(read_tree(parent, leaf_of, first, last), offset, threads)) {}

    double value(const Values<T>& w, const Array& scales, std::optional<Writable<T>> gradient, bool prior) {
        check(w.size(), scales, gradient ? gradient->size() : w.size());
        nb::gil_scoped_release free;
        return f_.value(w.data(), scales.data(), gradient ? gradient->data() : nullptr, prior);
    }
    void product(const Values<T>& direction, const Array& scales, Writable<T>& out, bool prior) {
        check(direction.size(), scales, out.size());
        nb::gil_scoped_release free;
        f_.product(direction.data(), scales.data(), out.data(), prior);
    }
    // changes w; (value, gap, evaluations, converged)
    nb::tuple minimise(Writable<T>& w, const Array& scales, double gap, int most) {
        check(w.size(), scales, w.size());
        TreeOptimum o;
        bool failed = false;
        {
            nb::gil_scoped_release free;
            o = multilevel::minimise(f_, scales.data(), w.data(), gap, most, watch(failed));
        }
        if (failed) throw nb::python_error();
        return nb::make_tuple(o.value, o.gap, o.evaluations, o.converged);
    }
    int solve(const Values<T>& right, const Array& scales, Writable<T>& x, bool from_x, double tolerance, int most) {
        check(right.size(), scales, x.size());
        bool failed = false;
        int products;
        {
            nb::gil_scoped_release free;
            f_.set_curvature();
            products = solve_with_hessian(f_, scales.data(), right.data(), x.data(), from_x, tolerance, most, watch(failed));
        }
        if (failed) throw nb::python_error();
        return products;
    }

  private:
    // whether the user has asked to stop (Ctrl-C); in the main thread only
    static Stopped watch(bool& failed) {
        return [&failed] {
            nb::gil_scoped_acquire hold;
            if (!failed) failed = PyErr_CheckSignals() != 0;
            return failed;
        };
    }
    Starts start_;
    Codes index_;
    Values<T> value_;
    Codes label_;
    Array weight_;
    Codes group_;
    int groups_;
    TreeSoftmax<T> f_;

    TreeSoftmax<T> make(Tree tree, const Values<T>& offset, int threads) const {
        const auto x = read_sparse<T>(start_, index_, value_, static_cast<std::int64_t>(group_.size()));
        const auto rows = static_cast<std::size_t>(x.lines);
        if (label_.size() != rows || weight_.size() != rows) throw std::invalid_argument("labels and weights need one entry a row");
        if (offset.size() != static_cast<std::size_t>(tree.leaves)) throw std::invalid_argument("offset needs one entry a leaf");
        for (std::size_t i = 0; i < rows; ++i)
            if (label_.data()[i] < 0 || label_.data()[i] >= tree.nodes() || !(weight_.data()[i] >= 0))
                throw std::invalid_argument("a label or a weight lies outside its range");
        for (std::size_t j = 0; j < group_.size(); ++j)
            if (group_.data()[j] < 0 || group_.data()[j] >= groups_) throw std::invalid_argument("a feature's group is unknown");
        std::vector<T> o(offset.data(), offset.data() + offset.size());
        return TreeSoftmax<T>(std::move(tree), x, label_.data(), weight_.data(), group_.data(), groups_, std::move(o), threads);
    }
    void check(std::size_t w, const Array& scales, std::size_t out) const {
        if (w != f_.size() || out != w || scales.size() != static_cast<std::size_t>(groups_ + 1) * f_.nodes())
            throw std::invalid_argument("w must be (features + 1, nodes), scales (groups + 1, nodes)");
    }
};

template <class T>
nb::object tree_probabilities(const Starts& start, const Codes& index, const Values<T>& value, const Values<T>& coefficients,
                              const Values<T>& intercepts, int leaves, int threads) {
    const std::size_t stride = intercepts.size();
    if (coefficients.ndim() != 2 || coefficients.shape(1) != stride || stride % 16 || leaves < 1 || leaves > static_cast<int>(stride))
        throw std::invalid_argument("coefficients must be (features, stride), the stride a multiple of 16 not below the leaves");
    const auto x = read_sparse<T>(start, index, value, static_cast<std::int64_t>(coefficients.shape(0)));
    vec out(static_cast<std::size_t>(x.lines) * leaves);
    {
        nb::gil_scoped_release free;
        leaf_probabilities(x, coefficients.data(), intercepts.data(), leaves, static_cast<int>(stride), threads, out.data());
    }
    return array(std::move(out), {static_cast<std::size_t>(x.lines), static_cast<std::size_t>(leaves)});
}

template <class T>
void bind_tree_problem(nb::module_& m, const char* name) {
    using P = TreeProblem<T>;
    nb::class_<P>(m, name)
        .def(nb::init<const Codes&, const Codes&, const Codes&, const Codes&, Starts, Codes, Values<T>, Codes, Array, Codes, int,
                      const Values<T>&, int>(),
             nb::arg("parent"), nb::arg("leaf_of"), nb::arg("first"), nb::arg("last"), nb::arg("start"), nb::arg("index"),
             nb::arg("value"), nb::arg("label"), nb::arg("weight"), nb::arg("group"), nb::arg("groups"), nb::arg("offset"),
             nb::arg("threads"))
        .def("value", &P::value, nb::arg("w"), nb::arg("scales"), nb::arg("gradient").none(), nb::arg("prior") = true)
        .def("product", &P::product, nb::arg("direction"), nb::arg("scales"), nb::arg("out"), nb::arg("prior") = true)
        .def("minimise", &P::minimise, nb::arg("w"), nb::arg("scales"), nb::arg("gap"), nb::arg("most"))
        .def("solve", &P::solve, nb::arg("right"), nb::arg("scales"), nb::arg("x"), nb::arg("from_x"), nb::arg("tolerance"), nb::arg("most"));
    m.def("tree_probabilities", &tree_probabilities<T>, nb::arg("start"), nb::arg("index"), nb::arg("value"),
          nb::arg("coefficients"), nb::arg("intercepts"), nb::arg("leaves"), nb::arg("threads"));
}

inline void bind_taxonomy(nb::module_& m) {
    bind_tree_problem<float>(m, "TreeProblemFloat");
    bind_tree_problem<double>(m, "TreeProblemDouble");
}
