#!/bin/sh
# Makes the files of tests/files that tests read, each by a program that people use to make such files.
# Needs on Debian 12: libreoffice-writer-nogui libreoffice-calc-nogui libreoffice-impress-nogui pandoc chromium
# texlive-latex-base texlive-xetex lmodern fonts-dejavu fonts-noto-core fonts-noto-cjk mutt qpdf poppler-utils imagemagick
# jupyter-nbconvert, and msoffcrypto-tool from PyPI. The files are committed: run this only to make them anew, and look at what changed.
set -eu

cd "$(dirname "$0")/../tests/files"
sources=$PWD/sources
files=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

office() { # office FILE FORMAT[:FILTER] [OPTION...]: converts by LibreOffice; the file is left in $work
    file=$1 format=$2
    shift 2
    soffice --headless -env:UserInstallation="file://$work/profile" "$@" \
        --convert-to "$format" --outdir "$work" "$file" >/dev/null
}

browser() {
    chromium --headless --no-sandbox --disable-gpu --user-data-dir="$work/chromium" "$@" 2>/dev/null
}

# LibreOffice Writer, Calc, Impress
office "$sources/report.html" 'docx:MS Word 2007 XML' --infilter='HTML (StarWriter)'
cp "$work/report.docx" "$files/writer.docx"
office "$files/writer.docx" pdf:writer_pdf_Export
cp "$work/writer.pdf" "$files/writer.pdf"
for old in doc rtf odt; do
    office "$files/writer.docx" $old
    cp "$work/writer.$old" "$files/writer.$old"
done
msoffcrypto-tool -e -p secret "$files/writer.docx" "$files/encrypted.docx"
office "$sources/table.fods" 'xlsx:Calc MS Excel 2007 XML'
cp "$work/table.xlsx" "$files/calc.xlsx"
office "$files/calc.xlsx" xls
cp "$work/calc.xls" "$files/calc.xls"
office "$files/calc.xlsx" 'csv:Text - txt - csv (StarCalc):44,34,76,1'
cp "$work/calc.csv" "$files/calc.csv"
office "$files/calc.xlsx" 'csv:Text - txt - csv (StarCalc):59,34,1,1'
cp "$work/calc.csv" "$files/calc-semicolons-windows-1252.csv"
pandoc "$sources/slides.md" -o "$files/pandoc.pptx"
office "$files/pandoc.pptx" odp
office "$work/pandoc.odp" 'pptx:Impress MS PowerPoint 2007 XML'
cp "$work/pandoc.pptx" "$files/impress.pptx"
office "$files/pandoc.pptx" pdf
cp "$work/pandoc.pdf" "$files/impress.pdf"

# pandoc
pandoc "$sources/book.md" -o "$files/pandoc.docx"
pandoc "$sources/book.md" -t epub3 -o "$files/pandoc.epub"
pandoc "$sources/book.md" -t epub2 -o "$files/pandoc-epub2.epub"
pandoc "$sources/book.md" -s -t html5 -o "$files/pandoc.html"
pandoc "$sources/notebook.md" -f markdown -t ipynb -o "$work/notebook.ipynb"
jupyter nbconvert --to notebook --output-dir "$work" --output made "$work/notebook.ipynb" 2>/dev/null
cp "$work/made.ipynb" "$files/jupyter.ipynb"

# TeX
(
    cd "$work"
    pdflatex -interaction=batchmode "$sources/article.tex" >/dev/null
    pdflatex -interaction=batchmode "$sources/article.tex" >/dev/null
    xelatex -interaction=batchmode "$sources/bidi.tex" >/dev/null
)
cp "$work/article.pdf" "$files/pdflatex.pdf"
cp "$work/bidi.pdf" "$files/xelatex.pdf"

# Chromium
browser --no-pdf-header-footer --print-to-pdf="$work/report.pdf" "file://$sources/report.html" >/dev/null
cp "$work/report.pdf" "$files/chromium.pdf"
browser --dump-dom "file://$sources/page.html" >"$files/chromium.html"
browser --screenshot="$work/page.png" --window-size=300,200 "file://$sources/page.html" >/dev/null

# Pictures, and a PDF of nothing else
convert "$work/page.png" -colors 16 -strip "$files/picture.png"
office "$files/picture.png" pdf
qpdf --empty --pages "$work/picture.pdf" 1 "$work/picture.pdf" 1 -- "$files/images.pdf"

# qpdf: encrypted with a password to open it, and with one that only forbids printing; linearized
qpdf --encrypt secret owner 256 -- "$files/xelatex.pdf" "$files/encrypted.pdf"
qpdf --encrypt "" owner 256 --print=none -- "$files/xelatex.pdf" "$files/unprintable.pdf"
qpdf --linearize --object-streams=generate "$files/xelatex.pdf" "$files/linearized.pdf"

# Mutt
printf '#!/bin/sh\ncat >"%s/sent.eml"\n' "$work" >"$work/sendmail"
chmod +x "$work/sendmail"
printf '#!/bin/sh\nprintf "text/html\\n\\n"; cat "%s/letter.html"\n' "$sources" >"$work/alternative"
chmod +x "$work/alternative"
send() { # send FILE OPTION...: writes the letter with mutt; what it would have sent is FILE
    file=$1
    shift
    mutt -n -F /dev/null -e "set sendmail='$work/sendmail'; set copy=no; set from='Nobody <nobody@example.org>'; \
        set charset=utf-8; set realname='Jürgen Groß'; set hostname=example.org" \
        -s 'Grüße aus Köln und 東京' "$@" -- 'Zoë <zoe@example.org>' <"$sources/letter.txt"
    cp "$work/sent.eml" "$files/$file"
}
send mutt.eml
send mutt-attached.eml -a "$sources/table.fods" -a "$files/mutt.eml"
send mutt-alternative.eml -e "set send_multipart_alternative=yes; \
    set send_multipart_alternative_filter='$work/alternative'"

# iconv: one text in the encodings of its language
encoded() { # encoded LANGUAGE ENCODING...
    language=$1
    shift
    for encoding in "$@"; do
        iconv -f UTF-8 -t "$encoding" "$sources/texts/$language.txt" >"$files/encodings/$language.$encoding.txt"
    done
}
mkdir -p "$files/encodings"
encoded de ISO-8859-1 WINDOWS-1252 CP850 UTF-16 UTF-16LE UTF-16BE UTF-32
encoded pl WINDOWS-1250 ISO-8859-2
encoded ru WINDOWS-1251 KOI8-R IBM866 ISO-8859-5 UTF-16LE
encoded el WINDOWS-1253
encoded tr WINDOWS-1254
encoded he WINDOWS-1255
encoded ar WINDOWS-1256 UTF-16BE
encoded ja SHIFT-JIS EUC-JP ISO-2022-JP UTF-16LE
encoded zh GB18030 BIG5-HKSCS UTF-16LE UTF-16BE
encoded ko EUC-KR
